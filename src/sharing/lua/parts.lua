-- What is kept of the limit for gateways that lose the store: parts.rs of `src/budget` has the rule and its proof.

-- How much of the limit is kept. A gateway that has not confirmed the current epoch may still hold the most of the epochs before.
local function kept(s)
  local sum = s.gateways * s.each
  if s.most > s.each then
    local known, sum_of_all, all = redis.call('ZRANGE', KNOWN, 0, -1), 0, true
    local confirmed = #known > 0 and redis.call('HMGET', PARTS, unpack(known)) or known
    for i = 1, s.gateways do
      local is_current = confirmed[i] and tonumber(confirmed[i]) >= s.epoch
      sum_of_all = sum_of_all + (is_current and s.each or s.most)
      all = all and is_current
    end
    sum = sum_of_all
    if all then
      s.most, s.is_changed = s.each, true
      redis.call('DEL', PARTS)
    end
  end
  -- A gateway that is the only one keeps to the limit by its own log.
  return s.gateways > 1 and sum or 0
end

-- From now on each part is another. A larger one is kept at once, a smaller one when it has been confirmed.
local function keep_each(s, each)
  s.epoch, s.each, s.most, s.is_changed = s.epoch + 1, each, math.max(s.most, each), true
end

-- This gateway has learned of an epoch, and holds no more than its part.
local function confirm(s, gateway, epoch)
  if s.most > s.each and epoch >= s.epoch then
    redis.call('HSET', PARTS, gateway, string.format('%.0f', epoch))
    redis.call('PEXPIRE', PARTS, STATE_LIVES)
  end
end

-- Parts become smaller before requests need what is kept for them, and larger again when few come and all have confirmed. Gateways take
-- about a second to confirm: so much is left as is used in that at an even pace.
local function adjust_parts(s)
  local second = math.ceil(s.granted * SECOND / window) + 1
  local fitting = function(each, spare)
    while each > 0 and s.used + s.gateways * each + spare > s.granted do each = over(each, 2) end
    return each
  end
  local most, larger = fitting(s.each, second), fitting(over(s.granted, 2 * math.max(s.gateways, 2)), 3 * second)
  if most < s.each then
    keep_each(s, most)
  elseif larger > s.each and s.most == s.each then
    keep_each(s, larger)
  end
end
