-- What is kept of the limit for gateways that lose the store: parts.rs of `src/budget` has the rule and its proof.

-- How much of the limit is kept. HELD has what a gateway holds at most that has confirmed an epoch since all did. Another one may
-- still hold the most of the epochs before. Parts do not become larger until all have confirmed, so what is in HELD stays true.
local function kept(s)
  local sum = s.gateways * s.each
  if s.most > s.each then
    local known, sum_of_all, all = redis.call('ZRANGE', KNOWN, 0, -1), 0, true
    local held = #known > 0 and redis.call('HMGET', HELD, unpack(known)) or known
    for i = 1, s.gateways do
      local holds = held[i] and math.max(tonumber(held[i]), s.each) or s.most
      sum_of_all = sum_of_all + holds
      all = all and holds == s.each
    end
    sum = sum_of_all
    if all then
      s.most, s.is_changed = s.each, true
      redis.call('DEL', HELD)
    end
  end
  -- A gateway that is alone keeps to the limit by its own log.
  return s.alone and 0 or sum
end

-- From now on each part is another. A larger one is kept at once, a smaller one when it has been confirmed.
local function keep_each(s, each)
  s.epoch, s.each, s.most, s.is_changed = s.epoch + 1, each, math.max(s.most, each), true
end

-- This gateway has learned of an epoch, and holds no more than its part.
local function confirm(s, gateway, epoch)
  if s.most > s.each and epoch >= s.epoch then
    redis.call('HSET', HELD, gateway, s.each)
    redis.call('PEXPIRE', HELD, STATE_LIVES)
  end
end

-- A gateway is alone where it is the only one, and all requests that count are its own.
local function note_alone(s, gateway)
  if s.alone or s.gateways > 1 then return end
  local own = gateway .. ':'
  for _, key in ipairs({ LOG, FLYING }) do
    for _, member in ipairs(redis.call('ZRANGE', key, 0, -1)) do
      if string.sub(member, 1, #own) ~= own then return end
    end
  end
  s.alone = true
end

-- A gateway that is alone holds half of the limit, however much it uses: no other one needs what is kept for it. Whoever joins it
-- has the other half until it has confirmed that its part is smaller.
local function adjust_part_of_one(s)
  local half = over(s.granted, 2)
  if half < s.each or (half > s.each and s.most == s.each) then keep_each(s, half) end
end

-- Parts become smaller before requests need what is kept for them, and larger again when few come and all have confirmed. Gateways take
-- about a second to confirm: so much is left as is used in that at an even pace.
local function adjust_parts(s)
  if s.alone then return adjust_part_of_one(s) end
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
