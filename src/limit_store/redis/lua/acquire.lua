-- Decides about one request: charges its consumer's bucket, and asks the budget of its credential.
--
-- ARGV: this gateway, its membership, the request; whether it skips the fair queue, whether others wait in the gateway's
-- queue, whether it goes even if the budget denies it, how many requests of a window are expected to skip the queue there;
-- the bucket's interval and depth in nanoseconds (0: no bucket); the latest epoch of parts that the gateway knows.
-- KEYS[7] is the bucket.
-- Returns: the verdict, the time until the bucket is full (-1: no bucket), the reason of a denial, the wait (-1: unknown),
-- the epoch of parts (0: unknown), the part of each gateway.
-- The verdict is 0: go, 1: the bucket is empty, 2: the budget denies it, 3: this gateway is not a member.

local gateway, membership, request = ARGV[FIRST_ARG], ARGV[FIRST_ARG + 1], ARGV[FIRST_ARG + 2]
local flag = function(i) return ARGV[FIRST_ARG + i] == '1' end
local express, waiting, anyway = flag(3), flag(4), flag(5)
local light = tonumber(ARGV[FIRST_ARG + 6])
local interval, depth = tonumber(ARGV[FIRST_ARG + 7]), tonumber(ARGV[FIRST_ARG + 8])
local epoch = tonumber(ARGV[FIRST_ARG + 9])

local seen_at = redis.call('ZSCORE', JOINED, membership)
if not seen_at then return { 3, -1, 0, -1, 0, 0 } end
if now - tonumber(seen_at) > FRESH / 4 then
  redis.call('ZADD', JOINED, now, membership)
  redis.call('ZADD', KNOWN, now, gateway)
end

local ahead, charged = -1, true
if interval > 0 then
  charged, ahead = charge(KEYS[7], interval, depth)
end
if not charged then return { 1, ahead, 0, -1, 0, 0 } end

local s = read_state()
count_gateways(s)
expire_requests(s)
confirm_epoch(s, gateway, epoch)
adjust_parts(s)
local found = capacity(s)
local wait = not express and math.max(next_turn(s, light), s.wanted + EXPRESS_HOLD, 0) or 0
if not anyway and (found.more == 0 or wait > 0) then
  if found.more == 0 then
    if express and not is_half_free(s) then s.wanted, s.is_changed = 0, true end
    -- The reserve for parts denies it: give up the parts for this request.
    if found.is_reserved and s.each > 0 then set_parts(s, 0) end
    if s.is_changed then write_state(s) end
    return { 2, ahead, found.by, found.ends or -1, s.epoch, s.each }
  end
  if s.is_changed then write_state(s) end
  return { 2, ahead, PACE, wait, s.epoch, s.each }
end
if not anyway then record_turn(s, waiting, light) end
redis.call('ZADD', FLYING, now + microseconds(deadline), gateway .. ':' .. request)
if s.in_flight == 0 then extend_log() end
write_state(s)
return { 0, ahead, found.by, found.more == 0 and 0 or -1, s.epoch, s.each }
