-- Starts a membership: replaces all requests of this gateway.
--
-- ARGV: this gateway, its membership; 1 if the store decides for it from now on, 0 if it still decides locally; then of
-- each request of the last window its number, 1 if it has no response, and the microseconds until it has arrived or until
-- it no longer counts.
-- Late calls of an older membership are rejected. Returns the number of gateways.

local gateway, membership, joins = ARGV[FIRST_ARG], ARGV[FIRST_ARG + 1], ARGV[FIRST_ARG + 2] == '1'
local prefix = gateway .. ':'
local remove_own = function(key)
  for _, member in ipairs(redis.call('ZRANGE', key, 0, -1)) do
    if string.sub(member, 1, #prefix) == prefix then redis.call('ZREM', key, member) end
  end
end
remove_own(LOG)
remove_own(FLYING)
remove_own(JOINED)
for i = FIRST_ARG + 3, #ARGV, 3 do
  redis.call('ZADD', ARGV[i + 1] == '1' and FLYING or LOG, now + tonumber(ARGV[i + 2]), prefix .. ARGV[i])
end
extend_log()
redis.call('ZADD', KNOWN, now, gateway)
if joins then
  redis.call('ZADD', JOINED, now, membership)
  -- The gateway has given up its part. It gets another one when it has learned of the next epoch.
  local s = read_state()
  count_gateways(s)
  expire_requests(s)
  detect_alone(s, gateway)
  adjust_parts(s)
  s.epoch = s.epoch + 1
  confirm_epoch(s, gateway, s.epoch)
  write_state(s)
end
expire_gateways()
return redis.call('ZCARD', KNOWN)
