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
local found = room(s)
return { found.by, found.ends or -1 }
