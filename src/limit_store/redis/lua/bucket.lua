-- A consumer's bucket: the generic cell rate algorithm, as `src/ratelimit/bucket.rs` has it. The time at which it is full again is
-- kept in whole microseconds and the nanoseconds beyond them.

local function ahead_of(key)
  local full, beyond = string.match(redis.call('GET', key) or '', '^(%d+)%.(%d+)$')
  return full and math.max((tonumber(full) - now) * 1000 + tonumber(beyond), 0) or 0
end

local function keep(key, ahead)
  local whole = math.floor(ahead / 1000)
  local text = string.format('%.0f.%.0f', now + whole, ahead - whole * 1000)
  redis.call('SET', key, text, 'PX', math.ceil(ahead / 1000000) + 1)
end

local function take(key, interval, depth)
  local before = ahead_of(key)
  local ahead = before + interval
  if ahead > depth then return false, before end
  keep(key, ahead)
  return true, ahead
end
