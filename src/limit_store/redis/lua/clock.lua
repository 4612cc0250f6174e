-- The server's time in microseconds since 1970. ARGV[1] is empty but in tests, which bring a clock of their own.
local now = tonumber(ARGV[1])
if not now then
  local time = redis.call('TIME')
  now = tonumber(time[1]) * 1000000 + tonumber(time[2])
end
