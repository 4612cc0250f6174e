-- What every script of the store begins with: one limit of a credential, as `src/budget` has it for a single gateway.
-- log.rs and replicas.rs are the specification of this part, function by function; a property test holds the two together.
-- What is left to others is in others.lua, what answers tell in told.lua, whether one more may go out in room.lua: a script is
-- made of what it needs, for each function costs time whenever a script runs.
--
-- Times: `now` is the server's, in microseconds since 1970. Whatever else is a time is in nanoseconds from now, which
-- numbers of 53 bits hold exactly; the state is moved along when it is read.

local STATE, LOG, FLYING, JOINED, KNOWN, HELD = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]

-- ARGV[1] is empty but in tests, which bring a clock of their own.
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
-- Silence after which a replica counts as cut off, in microseconds.
local FRESH = 1500000
local STATE_LIVES = '7200000'

local function down(n, least) return math.max(n - least, 0) end
local function over(a, b) return math.floor(a / b) end
local function microseconds(ns) return math.ceil(ns / 1000) end

-- The state -----------------------------------------------------------------------------------------------------------

-- The state is kept as so many values one after the other, windows behind them: tables with names cost three times as much.
local STATE_VALUES, WINDOW_VALUES = 25, 13

local function breaker(no, ends, noes, good, passed)
  return { no = ends and no - passed, ends = ends and ends - passed, noes = noes, good = good }
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
  epoch, each, most, alone, r_no, r_ends, r_noes, r_good, e_no, e_ends, e_noes, e_good, windows
)
  local passed = (now - at) * 1000
  local s = {
    granted = granted, higher = { higher, times }, silent = silent, suspected = suspected,
    suspected_until = until_then - passed, paced = math.max(paced - passed, LONG_AGO),
    wanted = math.min(math.max(wanted - passed, LONG_AGO), 0), part = part, epoch = epoch, each = each, most = most, alone = alone,
    refused = breaker(r_no, r_ends, r_noes, r_good, passed), edge = breaker(e_no, e_ends, e_noes, e_good, passed), windows = {},
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
      -- The first epoch is later than all of a store that was lost.
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
    s.part, s.epoch, s.each, s.most, s.alone, r.no, r.ends, r.noes, r.good, e.no, e.ends, e.noes, e.good, #s.windows
  )
  for _, w in ipairs(s.windows) do
    packed = packed .. cmsgpack.pack(
      w.name, w.limit, w.earliest, w.latest, w.least, w.tail, w.ours, w.first, w.first_at, w.told_at, w.own, w.seen, w.expected
    )
  end
  -- As with the log's keys: whoever begins it says when it ends, and heartbeats put that off.
  if s.is_new then redis.call('SET', STATE, packed, 'PX', STATE_LIVES) else redis.call('SET', STATE, packed, 'KEEPTTL') end
end

-- Where some gateways are cut off, the others together are as many gateways that share nothing (replica_share.rs). All go by the limit that
-- Cal.com tells of a window, if it does.
local function share(s, limit)
  if s.gateways == s.members then return nil end
  local own = math.min(math.max(over(limit or 1, s.gateways * 4), 1), 8)
  return { own = own * s.members, tail = own * s.gateways }
end

-- Where more gateways go by the store than did, or fewer, or there are more in all, or fewer, which requests were in the tail is no
-- longer known, nor which of the others were other gateways'.
local function note_gateways(s)
  local part = s.gateways ~= s.members and s.members .. ' of ' .. s.gateways or nil
  if part ~= s.part then
    for _, w in ipairs(s.windows) do
      w.tail, w.first, w.first_at, w.own, w.seen = w.ours, w.least, w.told_at, 0, 0
    end
  end
  s.part = part
end

-- Gateways of which something may count (heartbeats forget the others), and those of them that go by the store now.
local function count_gateways(s)
  s.members = math.max(redis.call('ZCOUNT', JOINED, now - FRESH, '+inf'), 1)
  s.gateways = math.max(redis.call('ZCARD', KNOWN), s.members)
  s.alone = s.alone and s.gateways == 1
  note_gateways(s)
end

local function keep_for(key, life)
  redis.call('ZREMRANGEBYSCORE', key, '-inf', now - life)
  redis.call('PEXPIRE', key, over(life, 1000) + 1000)
end

-- Forgets gateways of which nothing can count any more, and puts off the end of the others. A gateway that is cut off sends from its
-- part for a window and a deadline after it was last heard, and its last request from that may count for as long again. It counts
-- from its last call, and KNOWN may be older than that by less than FRESH.
local function keep_gateways()
  local counts = microseconds(window + deadline)
  keep_for(JOINED, counts)
  keep_for(KNOWN, 2 * counts + FRESH)
end

local function part(s)
  local alone = s.gateways == s.members
  if alone or (s.gateways <= s.granted and not s.silent) then return s.granted, window end
  local limit = over(s.granted * s.members, s.gateways)
  if limit >= 1 then return limit, window end
  return 1, over(window * s.gateways, math.max(s.granted * s.members, 1))
end

-- The log -------------------------------------------------------------------------------------------------------------

local function lasts(s)
  local _, length = part(s)
  return microseconds(length + over(length, 1000))
end

-- Whoever begins a key says when it ends; heartbeats, which every gateway on it sends, put that off.
local function keep_log()
  local life = over(deadline + 2 * window, 1000000) + 1000
  redis.call('PEXPIRE', LOG, life)
  redis.call('PEXPIRE', FLYING, life)
end

-- So many requests are over and nothing is known of them: they may have been counted.
local function note_lost(s, n)
  for _, w in ipairs(s.windows) do
    w.own, w.least, w.ours, w.tail = w.own + n, down(w.least, n), w.ours + n, w.tail + n
  end
end

-- What has no answer by its deadline has arrived by then, if at all.
local function give_up(s)
  local lost = redis.call('ZRANGEBYSCORE', FLYING, '-inf', now, 'WITHSCORES')
  for i = 1, #lost, 2 do
    redis.call('ZREM', FLYING, lost[i])
    redis.call('ZADD', LOG, tonumber(lost[i + 1]) + lasts(s), lost[i])
  end
  if #lost > 0 then
    keep_log()
    note_lost(s, #lost / 2)
    write_state(s)
  end
  s.in_flight = redis.call('ZCARD', FLYING)
end

-- Forgets what Cal.com no longer counts.
local function release(s)
  give_up(s)
  redis.call('ZREMRANGEBYSCORE', LOG, '-inf', now)
  s.used = redis.call('ZCARD', LOG) + s.in_flight
end

-- Others on the same credential ---------------------------------------------------------------------------------------

local function milliseconds(ns) return over(ns, 1000000) end

local function by_part(n, length, whole)
  return math.ceil(milliseconds(length) * n / math.max(milliseconds(whole), 1))
end

local function suspected(s)
  return s.suspected_until > 0 and s.suspected or 0
end
