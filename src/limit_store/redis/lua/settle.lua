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
local over_at = now + (fate == 'lost' and microseconds(number(3)) or 0) + lasts(s)
redis.call('ZADD', LOG, over_at, member)
if redis.call('ZCARD', LOG) == 1 then keep_log() end
give_up(s)
if fate == 'lost' then
  note_lost(s, 1)
  write_state(s)
  return { -1, -1 }
end

local sent, verdict = -number(3), ARGV[FIRST_ARG + 4]
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
if verdict == 'passed' or #told > 0 then gate_answered(s, told, sent) end
if widest then granted_told(s, widest) end
if verdict == 'passed' or verdict == 'unclear' then
  if verdict == 'passed' then
    good(s.refused, sent)
    good(s.edge, sent)
  end
  write_state(s)
  return { -1, -1 }
end
