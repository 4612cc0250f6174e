-- Handles the refusal that settle.lua records: blocks the credential, and returns the reason and the time.

local wait, jitter = number(5), number(6)
if verdict == 'refused' then
  if wait >= 0 then wait = math.max(wait, reset or 0) else wait = reset or window end
  if not backoff_cap(s.refused) then
    s.suspected = math.min(suspected(s) + divide(s.granted, 3), divide(s.granted, 2))
    s.suspected_until = 3600 * SECOND
  end
  block(s.refused, wait + jitter)
else
  if wait < 0 then wait = SECOND * 2 ^ math.min(s.edge.refusals, 6) end
  block(s.edge, math.min(math.max(wait, SECOND), 60 * SECOND))
end
write_state(s)
-- As in src/ratelimit/limiter.rs, the block of Cal.com's limiter comes first, then that of its edge.
local function held(backoff, by)
  local _, ends = backoff_cap(backoff)
  return ends and { by, ends }
end
return held(s.refused, REFUSED) or held(s.edge, EDGE) or { verdict == 'refused' and REFUSED or EDGE, -1 }
