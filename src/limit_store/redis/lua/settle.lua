-- Records the outcome of one request. on_refusal.lua follows, and handles a refusal.
--
-- ARGV: this gateway, the request, its outcome. For `answered`, the time since it was sent in nanoseconds, the verdict, the
-- wait after a refusal (-1: none), the jitter to add to it; then of each limit in the response its name, its limit (-1:
-- unknown), what remains, and the nanoseconds to its reset. For `lost`, the nanoseconds until it has arrived.
-- Returns, after a refusal, the reason that holds the credential and for how long (-1: unknown). Otherwise the reason is -1.

local member = ARGV[FIRST_ARG] .. ':' .. ARGV[FIRST_ARG + 1]
local outcome = ARGV[FIRST_ARG + 2]
local number = function(i) return tonumber(ARGV[FIRST_ARG + i]) end

redis.call('ZREM', FLYING, member)
if outcome == 'unsent' then
  redis.call('ZREM', LOG, member)
  return { -1, -1 }
end
local s = read_state()
count_gateways(s)
local counts_until = now + (outcome == 'lost' and microseconds(number(3)) or 0) + log_life(s)
redis.call('ZADD', LOG, counts_until, member)
if redis.call('ZCARD', LOG) == 1 then extend_log() end
expire_flying(s)
if outcome == 'lost' then
  record_lost(s, 1)
  write_state(s)
  return { -1, -1 }
end

local sent, verdict = -number(3), ARGV[FIRST_ARG + 4]
local readings, widest, reset = {}, nil, nil
for i = 7, #ARGV - FIRST_ARG, 4 do
  local limit = number(i + 1)
  local reading = { name = ARGV[FIRST_ARG + i], remaining = number(i + 2), reset = number(i + 3) }
  if limit >= 0 then
    reading.limit = limit
    widest = math.max(widest or 0, limit)
  end
  reset = math.max(reset or 0, reading.reset)
  readings[#readings + 1] = reading
end
if verdict == 'passed' or #readings > 0 then observe_windows(s, readings, sent) end
if widest then observe_limit(s, widest) end
if verdict == 'passed' or verdict == 'unclear' then
  if verdict == 'passed' then
    record_success(s.refused, sent)
    record_success(s.edge, sent)
  end
  write_state(s)
  return { -1, -1 }
end
