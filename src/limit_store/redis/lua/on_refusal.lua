-- The limiter or the edge has refused the request that settle.lua tells of: what holds the credential now, and for how long.

local wait, jitter = number(5), number(6)
if verdict == 'refused' then
  if wait >= 0 then wait = math.max(wait, reset or 0) else wait = reset or window end
  if not breaker_cap(s.refused) then
    s.suspected = math.min(suspected(s) + over(s.granted, 3), over(s.granted, 2))
    s.suspected_until = 3600 * SECOND
  end
  block(s.refused, wait + jitter)
else
  if wait < 0 then wait = SECOND * 2 ^ math.min(s.edge.noes, 6) end
  block(s.edge, math.min(math.max(wait, SECOND), 60 * SECOND))
end
write_state(s)
release(s)
-- As the state machine has it: what holds is a block that is not over, that of the limiter first.
local function held(breaker, by)
  local _, ends = breaker_cap(breaker)
  return ends and { by, ends }
end
return held(s.refused, REFUSED) or held(s.edge, EDGE) or { verdict == 'refused' and REFUSED or EDGE, -1 }
