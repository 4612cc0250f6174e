-- The server's time in microseconds since 1970. ARGV[1] is empty, except in tests, which bring their own clock.
local now = tonumber(ARGV[1])
if not now then
  local time = redis.call('TIME')
  now = tonumber(time[1]) * 1000000 + tonumber(time[2])
end
