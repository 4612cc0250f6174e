-- Bucket of a consumer: the generic cell rate algorithm, as in src/ratelimit/bucket.rs. The key holds the time at which the
-- bucket is full, as whole microseconds and the nanoseconds beyond them.

local function time_to_full(key)
  local full, beyond = string.match(redis.call('GET', key) or '', '^(%d+)%.(%d+)$')
  return full and math.max((tonumber(full) - now) * 1000 + tonumber(beyond), 0) or 0
end

local function write_bucket(key, ahead)
  local whole = math.floor(ahead / 1000)
  local text = string.format('%.0f.%.0f', now + whole, ahead - whole * 1000)
  redis.call('SET', key, text, 'PX', math.ceil(ahead / 1000000) + 1)
end

local function charge(key, interval, depth)
  local before = time_to_full(key)
  local ahead = before + interval
  if ahead > depth then return false, before end
  write_bucket(key, ahead)
  return true, ahead
end
