-- One request asks to go out: its consumer's bucket, its credential's log, gate and breakers, decided as one.
--
-- ARGV: this gateway, its membership, the request; whether it need not take turns, whether others wait for theirs there, whether it
-- goes whatever the budget says, what others there are expected to ask for without taking turns;
-- the bucket's interval and depth in nanoseconds (0: there is none to charge); the latest epoch of parts that it knows. KEYS[7] is
-- the bucket. Answers: verdict, how far the bucket's being full lies ahead (-1: no bucket), by what it is held, for how long (-1: not
-- known), the epoch of parts (0: not known), the part of each gateway.
-- A verdict is 0: go, 1: the bucket is empty, 2: held by the budget, 3: this gateway is no member.

local gateway, membership, request = ARGV[FIRST_ARG], ARGV[FIRST_ARG + 1], ARGV[FIRST_ARG + 2]
local flag = function(i) return ARGV[FIRST_ARG + i] == '1' end
local express, waiting, anyway = flag(3), flag(4), flag(5)
local light = tonumber(ARGV[FIRST_ARG + 6])
local interval, depth = tonumber(ARGV[FIRST_ARG + 7]), tonumber(ARGV[FIRST_ARG + 8])
local epoch = tonumber(ARGV[FIRST_ARG + 9])

local heard = redis.call('ZSCORE', JOINED, membership)
if not heard then return { 3, -1, 0, -1, 0, 0 } end
if now - tonumber(heard) > FRESH / 4 then
  redis.call('ZADD', JOINED, now, membership)
  redis.call('ZADD', KNOWN, now, gateway)
end

local ahead, charged = -1, true
if interval > 0 then
  charged, ahead = take(KEYS[7], interval, depth)
end
if not charged then return { 1, ahead, 0, -1, 0, 0 } end

local s = read_state()
count_gateways(s)
release(s)
confirm(s, gateway, epoch)
adjust_parts(s)
local found = room(s)
local wait = not express and math.max(due(s, light), s.wanted + KEPT, 0) or 0
if not anyway and (found.more == 0 or wait > 0) then
  if found.more == 0 then
    if express and not is_half_free(s) then s.wanted, s.is_changed = 0, true end
    -- What holds it is kept for parts: those are given up for it.
    if found.is_kept and s.each > 0 then keep_each(s, 0) end
    if s.is_changed then write_state(s) end
    return { 2, ahead, found.by, found.ends or -1, s.epoch, s.each }
  end
  if s.is_changed then write_state(s) end
  return { 2, ahead, PACE, wait, s.epoch, s.each }
end
if not anyway then took_turn(s, waiting, light) end
redis.call('ZADD', FLYING, now + microseconds(deadline), gateway .. ':' .. request)
if s.in_flight == 0 then keep_log() end
write_state(s)
return { 0, ahead, found.by, found.more == 0 and 0 or -1, s.epoch, s.each }
