-- Parts of the limit that gateways may use without the store. src/ratelimit/parts.rs has the rule and its proof.

-- Returns how many requests are reserved for parts. HELD has the maximum part of each gateway that has confirmed an epoch since all
-- did. Another gateway may still hold the largest part of the epochs before. Parts grow only after all have confirmed, so
-- the entries of HELD stay true.
local function reserve_of_parts(s)
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
  -- A gateway that is alone keeps the limit by its own log.
  return s.alone and 0 or sum
end

-- Sets the part of each gateway. A larger one takes effect at once, a smaller one when the gateway has confirmed it.
local function set_parts(s, each)
  s.epoch, s.each, s.most, s.is_changed = s.epoch + 1, each, math.max(s.most, each), true
end

-- Records that a gateway knows an epoch, and holds no more than its part.
local function confirm_epoch(s, gateway, epoch)
  if s.most > s.each and epoch >= s.epoch then
    redis.call('HSET', HELD, gateway, s.each)
    redis.call('PEXPIRE', HELD, STATE_LIFE)
  end
end

-- A gateway is alone if it is the only one, and all requests that count are its own.
local function detect_alone(s, gateway)
  if s.alone or s.gateways > 1 then return end
  local prefix = gateway .. ':'
  for _, key in ipairs({ LOG, FLYING }) do
    for _, member in ipairs(redis.call('ZRANGE', key, 0, -1)) do
      if string.sub(member, 1, #prefix) ~= prefix then return end
    end
  end
  s.alone = true
end

-- A gateway that is alone holds half of the limit, whatever it uses, because no other gateway needs the reserve. A gateway that joins
-- gets the other half when the first one has confirmed a smaller part.
local function adjust_part_of_one(s)
  local half = divide(s.granted, 2)
  if half < s.each or (half > s.each and s.most == s.each) then set_parts(s, half) end
end

-- Parts shrink before requests need the reserve. They grow when there are few requests and all gateways have confirmed. A
-- confirmation takes about a second, so the spare capacity is the usage of a second at an even pace.
local function adjust_parts(s)
  if s.alone then return adjust_part_of_one(s) end
  local second = math.ceil(s.granted * SECOND / window) + 1
  local fitting = function(each, spare)
    while each > 0 and s.used + s.gateways * each + spare > s.granted do each = divide(each, 2) end
    return each
  end
  local most, larger = fitting(s.each, second), fitting(divide(s.granted, 2 * math.max(s.gateways, 2)), 3 * second)
  if most < s.each then
    set_parts(s, most)
  elseif larger > s.each and s.most == s.each then
    set_parts(s, larger)
  end
end
