-- This gateway comes, or comes back: everything of its own is written anew.
--
-- ARGV: this gateway, its membership; 1 if it goes by the store from now on, 0 if it still goes by itself; then each request
-- of the last window: its name, 1 if it has no answer, and the microseconds until it has arrived or until it is released.
-- What still comes under an older membership, late, is refused. Answers how many gateways have been heard of.

local gateway, membership, joins = ARGV[FIRST_ARG], ARGV[FIRST_ARG + 1], ARGV[FIRST_ARG + 2] == '1'
local own = gateway .. ':'
local remove_own = function(key)
  for _, member in ipairs(redis.call('ZRANGE', key, 0, -1)) do
    if string.sub(member, 1, #own) == own then redis.call('ZREM', key, member) end
  end
end
remove_own(LOG)
remove_own(FLYING)
remove_own(JOINED)
for i = FIRST_ARG + 3, #ARGV, 3 do
  redis.call('ZADD', ARGV[i + 1] == '1' and FLYING or LOG, now + tonumber(ARGV[i + 2]), own .. ARGV[i])
end
keep_log()
redis.call('ZADD', KNOWN, now, gateway)
if joins then
  redis.call('ZADD', JOINED, now, membership)
  -- It has given up its part. The next epoch gives it another, once it has learned of that.
  local s = read_state()
  count_gateways(s)
  release(s)
  note_alone(s, gateway)
  adjust_parts(s)
  s.epoch = s.epoch + 1
  confirm(s, gateway, s.epoch)
  write_state(s)
end
keep_gateways()
return redis.call('ZCARD', KNOWN)
