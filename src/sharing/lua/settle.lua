-- What came of one request.
--
-- ARGV: this gateway, the request, its fate; and, where that is `answered`: how long ago it was sent, in nanoseconds, the limiter's
-- verdict, the wait that a no asks for (-1: none), the jitter to add to it; then name, limit (-1: not told), what is left and
-- nanoseconds to the reset of each limit that the answer told of. Where the fate is `lost`: nanoseconds until it has arrived.
-- Answers what holds the credential after a no, and for how long (-1: not known).

local member = ARGV[FIRST_ARG] .. ':' .. ARGV[FIRST_ARG + 1]
local fate = ARGV[FIRST_ARG + 2]
local number = function(i) return tonumber(ARGV[FIRST_ARG + i]) end

redis.call('ZREM', FLYING, member)
if fate == 'unsent' then
  redis.call('ZREM', LOG, member)
  return { -1, -1 }
end
local s = read_state()
count_gateways(s)
if fate == 'lost' then
  redis.call('ZADD', LOG, now + microseconds(number(3)) + lasts(s), member)
  keep_log()
  release(s)
  note_lost(s, 1)
  write_state(s)
  return { -1, -1 }
end

redis.call('ZADD', LOG, now + lasts(s), member)
keep_log()
release(s)
local sent, verdict, wait, jitter = -number(3), ARGV[FIRST_ARG + 4], number(5), number(6)
local told, widest, reset = {}, nil, nil
for i = 7, #ARGV - FIRST_ARG, 4 do
  local limit = number(i + 1)
  local seen = { name = ARGV[FIRST_ARG + i], remaining = number(i + 2), reset = number(i + 3) }
  if limit >= 0 then
    seen.limit = limit
    widest = math.max(widest or 0, limit)
  end
  reset = math.max(reset or 0, seen.reset)
  told[#told + 1] = seen
end
gate_answered(s, told, sent)
if widest then
  granted_told(s, widest)
  note_share(s)
end

local answer = { -1, -1 }
if verdict == 'passed' then
  good(s.refused, sent)
  good(s.edge, sent)
else
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
  local found = room(s)
  answer = { found.by, found.ends or -1 }
end
write_state(s)
return answer
