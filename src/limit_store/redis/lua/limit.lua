-- First piece of each script about a limit: the state of one limit of a credential, as in src/ratelimit for one gateway.
-- Its functions are those of src/ratelimit/sliding_log.rs and src/ratelimit/replica_share.rs. A property test compares them.
-- The other pieces follow only in the scripts that need them, because Redis runs the definition of each function in every call.
--
-- `now` is the server's time in microseconds since 1970. All other times are nanoseconds from now, which a number of 53 bits
-- holds exactly. read_state moves the stored times along.

local STATE, LOG, FLYING, JOINED, KNOWN, HELD = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]

-- ARGV[1] is empty, except in tests, which bring their own clock.
local now = tonumber(ARGV[1])
if not now then
  local time = redis.call('TIME')
  now = tonumber(time[1]) * 1000000 + tonumber(time[2])
end
local configured, learn = tonumber(ARGV[2]), ARGV[3] == '1'
local window, deadline = tonumber(ARGV[4]) * 1000, tonumber(ARGV[5]) * 1000
local FIRST_ARG = 6

local SECOND = 1000000000
local LONG_AGO = -1000000 * SECOND
-- Silence after which a gateway counts as cut off, in microseconds.
local FRESH = 1500000
local STATE_LIFE = '7200000'

-- Difference that is never negative.
local function subtract(n, least) return math.max(n - least, 0) end
local function divide(a, b) return math.floor(a / b) end
local function microseconds(ns) return math.ceil(ns / 1000) end

-- The state -----------------------------------------------------------------------------------------------------------

-- The state is packed as this many values, then the values of each window. Tables with names take three times as long.
local STATE_VALUES, WINDOW_VALUES = 25, 13

local function backoff_of(at, ends, refusals, successes, passed)
  return { at = ends and at - passed, ends = ends and ends - passed, refusals = refusals, successes = successes }
end

local function window_of(
  passed, name, limit, earliest, latest, least, tail, ours, first, first_at, told_at, own, seen, expected
)
  return {
    name = name, limit = limit, earliest = earliest - passed, latest = latest - passed, least = least, tail = tail, ours = ours,
    first = first, first_at = first_at - passed, told_at = told_at - passed, own = own, seen = seen, expected = expected,
  }
end

local function state_of(
  next, at, granted, was, learnt, higher, times, silent, suspected, until_then, paced, wanted, part,
  epoch, each, most, alone, r_at, r_ends, r_refusals, r_successes, e_at, e_ends, e_refusals, e_successes, windows
)
  local passed = (now - at) * 1000
  local s = {
    granted = granted, higher = { higher, times }, silent = silent, suspected = suspected,
    suspected_until = until_then - passed, paced = math.max(paced - passed, LONG_AGO),
    wanted = math.min(math.max(wanted - passed, LONG_AGO), 0), part = part, epoch = epoch, each = each, most = most, alone = alone,
    refused = backoff_of(r_at, r_ends, r_refusals, r_successes, passed),
    edge = backoff_of(e_at, e_ends, e_refusals, e_successes, passed), windows = {},
  }
  if was ~= configured or learnt ~= learn then s.granted, s.higher = configured, { 0, 0 } end
  return s, windows, next, passed
end

local function add_window(s, passed, next, ...)
  s.windows[#s.windows + 1] = window_of(passed, ...)
  return next
end

local function read_state()
  local packed = redis.call('GET', STATE)
  if not packed then
    local s = state_of(
      -1, now, configured, configured, learn, 0, 0, false, 0, 0, LONG_AGO, LONG_AGO, nil,
      -- The first epoch is later than all epochs of a store that was lost.
      now, 0, 0, false, nil, nil, 0, 0, nil, nil, 0, 0, 0
    )
    s.is_new = true
    return s
  end
  local s, windows, next, passed = state_of(cmsgpack.unpack_limit(packed, STATE_VALUES))
  for _ = 1, windows do
    next = add_window(s, passed, cmsgpack.unpack_limit(packed, WINDOW_VALUES, next))
  end
  return s
end

local function write_state(s)
  local r, e = s.refused, s.edge
  local packed = cmsgpack.pack(
    now, s.granted, configured, learn, s.higher[1], s.higher[2], s.silent, s.suspected, s.suspected_until, s.paced, s.wanted,
    s.part, s.epoch, s.each, s.most, s.alone, r.at, r.ends, r.refusals, r.successes, e.at, e.ends, e.refusals, e.successes,
    #s.windows
  )
  for _, w in ipairs(s.windows) do
    packed = packed .. cmsgpack.pack(
      w.name, w.limit, w.earliest, w.latest, w.least, w.tail, w.ours, w.first, w.first_at, w.told_at, w.own, w.seen, w.expected
    )
  end
  -- The first write sets when the key expires, and heartbeats extend that.
  if s.is_new then redis.call('SET', STATE, packed, 'PX', STATE_LIFE) else redis.call('SET', STATE, packed, 'KEEPTTL') end
end

-- While some gateways are cut off, the others together act as that many gateways with a static share each
-- (src/ratelimit/replica_share.rs). The shares are of the limit that Cal.com reports for a window, if it does.
local function replica_share(s, limit)
  if s.gateways == s.members then return nil end
  local own = math.min(math.max(divide(limit or 1, s.gateways * 4), 1), 8)
  return { own = own * s.members, tail = own * s.gateways }
end

-- After a change in the number of members or gateways, it is no longer known which requests were in the tail, and which of
-- the others came from gateways.
local function track_members(s)
  local part = s.gateways ~= s.members and s.members .. ' of ' .. s.gateways or nil
  if part ~= s.part then
    for _, w in ipairs(s.windows) do
      w.tail, w.first, w.first_at, w.own, w.seen = w.ours, w.least, w.told_at, 0, 0
    end
  end
  s.part = part
end

-- Counts the gateways whose requests may count, and those for which the store decides. Heartbeats remove other gateways.
local function count_gateways(s)
  s.members = math.max(redis.call('ZCOUNT', JOINED, now - FRESH, '+inf'), 1)
  s.gateways = math.max(redis.call('ZCARD', KNOWN), s.members)
  s.alone = s.alone and s.gateways == 1
  track_members(s)
end

local function expire_members(key, life)
  redis.call('ZREMRANGEBYSCORE', key, '-inf', now - life)
  redis.call('PEXPIRE', key, divide(life, 1000) + 1000)
end

-- Removes the gateways whose requests no longer count, and extends the keys. A gateway that is cut off uses its part for a
-- window and a deadline after its last heartbeat, and its last request from that may count as long again. It counts from
-- its last call, and its entry in KNOWN may be older than that by less than FRESH.
local function expire_gateways()
  local life = microseconds(window + deadline)
  expire_members(JOINED, life)
  expire_members(KNOWN, 2 * life + FRESH)
end

-- Returns the limit of all members together, and the time for which it holds.
local function members_part(s)
  local is_complete = s.gateways == s.members
  if is_complete or (s.gateways <= s.granted and not s.silent) then return s.granted, window end
  local limit = divide(s.granted * s.members, s.gateways)
  if limit >= 1 then return limit, window end
  return 1, divide(window * s.gateways, math.max(s.granted * s.members, 1))
end

-- The sliding-window log ----------------------------------------------------------------------------------------------

-- Returns how long an answered request counts, in microseconds.
local function log_life(s)
  local _, length = members_part(s)
  return microseconds(length + divide(length, 1000))
end

-- The first write of a key sets when it expires. The heartbeats of the gateways extend that.
local function extend_log()
  local life = divide(deadline + 2 * window, 1000000) + 1000
  redis.call('PEXPIRE', LOG, life)
  redis.call('PEXPIRE', FLYING, life)
end

-- Records `n` requests without a response. Cal.com may have counted them.
local function record_lost(s, n)
  for _, w in ipairs(s.windows) do
    w.own, w.least, w.ours, w.tail = w.own + n, subtract(w.least, n), w.ours + n, w.tail + n
  end
end

-- Moves requests without a response from FLYING to LOG at their deadline. They have arrived by then, if at all.
local function expire_flying(s)
  local lost = redis.call('ZRANGEBYSCORE', FLYING, '-inf', now, 'WITHSCORES')
  for i = 1, #lost, 2 do
    redis.call('ZREM', FLYING, lost[i])
    redis.call('ZADD', LOG, tonumber(lost[i + 1]) + log_life(s), lost[i])
  end
  if #lost > 0 then
    extend_log()
    record_lost(s, #lost / 2)
    write_state(s)
  end
  s.in_flight = redis.call('ZCARD', FLYING)
end

-- Removes the requests that Cal.com no longer counts.
local function expire_requests(s)
  expire_flying(s)
  redis.call('ZREMRANGEBYSCORE', LOG, '-inf', now)
  s.used = redis.call('ZCARD', LOG) + s.in_flight
end

-- Other clients of the credential -------------------------------------------------------------------------------------

local function milliseconds(ns) return divide(ns, 1000000) end

-- Scales `n` requests of the time `whole` to the time `length`.
local function prorate(n, length, whole)
  return math.ceil(milliseconds(length) * n / math.max(milliseconds(whole), 1))
end

local function suspected(s)
  return s.suspected_until > 0 and s.suspected or 0
end
