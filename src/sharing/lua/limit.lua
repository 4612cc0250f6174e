-- What every script of the store begins with: one limit of a credential, as `src/budget` has it for a single gateway.
-- log.rs, gate.rs, foreign.rs, granted.rs, breaker.rs, replicas.rs and machine.rs are the specification, function by
-- function; a property test holds the two together.
--
-- Times: `now` is the server's, in microseconds since 1970. Whatever else is a time is in nanoseconds from now, which
-- numbers of 53 bits hold exactly; the state is moved along when it is read.

local STATE, LOG, FLYING, JOINED, KNOWN = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]

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
local UNBOUNDED = 4294967295
local GIVEN_AWAY = 75
local UNKNOWN, MOST_NAMES, MOST_PUT_OFF, AGREEING = 4, 4, 4, 3
local CAREFUL, GOOD_ENOUGH = 4, 4
local LONG_AGO = -1000000 * SECOND
-- A replica that has not been heard of for so long is taken to be cut off, in microseconds.
local FRESH = 1500000
local STATE_LIVES = 7200000

local REQUESTS, REMAINING, PACE, REFUSED, EDGE = 0, 1, 2, 3, 4

local function down(n, least) return math.max(n - least, 0) end
local function over(a, b) return math.floor(a / b) end
local function microseconds(ns) return math.ceil(ns / 1000) end

-- The state -----------------------------------------------------------------------------------------------------------

local function fresh()
  local breaker = function() return { noes = 0, good = 0 } end
  return {
    at = now, granted = configured, configured = configured, learn = learn, higher = { 0, 0 },
    silent = false, suspected = 0, suspected_until = 0, windows = {},
    refused = breaker(), edge = breaker(), paced = LONG_AGO,
  }
end

local function read_state()
  local packed = redis.call('GET', STATE)
  local s = packed and cmsgpack.unpack(packed) or fresh()
  local passed = (now - s.at) * 1000
  s.at = now
  s.paced = math.max(s.paced - passed, LONG_AGO)
  s.suspected_until = s.suspected_until - passed
  for _, breaker in ipairs({ s.refused, s.edge }) do
    if breaker.ends then breaker.no, breaker.ends = breaker.no - passed, breaker.ends - passed end
  end
  for _, w in ipairs(s.windows) do
    w.earliest, w.latest, w.first_at = w.earliest - passed, w.latest - passed, w.first_at - passed
  end
  if s.configured ~= configured or s.learn ~= learn then
    s.granted, s.configured, s.learn, s.higher = configured, configured, learn, { 0, 0 }
  end
  return s
end

local function write_state(s)
  redis.call('SET', STATE, cmsgpack.pack(s), 'PX', STATE_LIVES)
end

-- Where some gateways are cut off, the others together are as many gateways that share nothing (replicas.rs).
local function share(s)
  if s.gateways == s.members then return nil end
  local own = math.min(math.max(over(s.granted, s.gateways * 4), 1), 8)
  return { own = own * s.members, tail = own * s.gateways }
end

-- Where the part of those that go by the store is another than it was, which requests were in the tail is no longer known.
local function note_share(s)
  local shared = share(s)
  local part = shared and shared.own .. ' of ' .. shared.tail or nil
  if part ~= s.part then
    for _, w in ipairs(s.windows) do w.tail = w.ours end
  end
  s.part = part
end

-- Gateways heard of within the time that their requests may count for, and those of them that go by the store now.
local function count_gateways(s)
  local lately = now - microseconds(window + deadline)
  local members = redis.call('ZCOUNT', JOINED, now - FRESH, '+inf')
  s.members = math.max(members, 1)
  s.gateways = math.max(redis.call('ZCOUNT', KNOWN, lately, '+inf'), s.members)
  note_share(s)
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

-- Forgets what Cal.com no longer counts. What has no answer by its deadline has arrived by then, if at all.
local function release(s)
  local lost = redis.call('ZRANGEBYSCORE', FLYING, '-inf', now, 'WITHSCORES')
  for i = 1, #lost, 2 do
    redis.call('ZREM', FLYING, lost[i])
    redis.call('ZADD', LOG, tonumber(lost[i + 1]) + lasts(s), lost[i])
  end
  if #lost > 0 then
    note_lost(s, #lost / 2)
    write_state(s)
  end
  redis.call('ZREMRANGEBYSCORE', LOG, '-inf', now)
  s.in_flight = redis.call('ZCARD', FLYING)
  s.used = redis.call('ZCARD', LOG) + s.in_flight
end

local function next_release()
  local first = redis.call('ZRANGE', LOG, 0, 0, 'WITHSCORES')
  return first[2] and (tonumber(first[2]) - now) * 1000 or nil
end

-- Others on the same credential ---------------------------------------------------------------------------------------

local function by_part(n, length, whole)
  local ms = function(ns) return over(ns, 1000000) end
  return math.ceil(ms(length) * n / math.max(ms(whole), 1))
end

local function suspected(s)
  return s.suspected_until > 0 and s.suspected or 0
end

local function reserve(s, w)
  local rate, alone = suspected(s), s.gateways == s.members
  if alone and w.seen > 0 then
    rate = math.max(rate, by_part(w.seen, window, math.max(-w.first_at, over(window, 8))))
  end
  if alone then rate = math.max(rate, w.expected) end
  if rate == 0 then return 0 end
  local to_come = by_part(rate, math.max(w.latest, 0), window)
  return to_come + 4 * math.floor(math.sqrt(to_come)) + 2
end

-- The gate ------------------------------------------------------------------------------------------------------------

local function note_tail(s, w, remaining)
  local shared = share(s)
  w.ours = w.ours + 1
  if shared and down(remaining, reserve(s, w)) < shared.tail then w.tail = w.tail + 1 end
end

-- Between when and when a window ends, by what one answer told; its first request says it best.
local function ends(seen, sent)
  if seen.limit and seen.remaining + 1 == seen.limit and math.abs(seen.reset - window) < SECOND then
    return sent + window, window + over(window, 256)
  end
  return sent + seen.reset - SECOND, seen.reset + SECOND
end

local function new_window(s, seen, earliest, latest, expected)
  local w = {
    name = seen.name, limit = seen.limit, earliest = earliest, latest = latest, least = seen.remaining, tail = 0, ours = 0,
    first = seen.remaining, first_at = 0, own = 0, seen = 0, expected = expected,
  }
  note_tail(s, w, seen.remaining)
  return w
end

local function note(s, i, seen, sent)
  local w = s.windows[i]
  w.limit = seen.limit or w.limit
  local earliest, latest = ends(seen, sent)
  if latest < w.earliest then return end
  if earliest > w.latest then
    local expected = math.max(w.seen, over(w.expected * 3, 4))
    s.windows[i] = new_window(s, seen, earliest, latest, expected)
    return
  end
  -- An answer that took very long may be from the window before: it makes nothing looser.
  if earliest + window > w.latest then
    w.earliest, w.latest = math.max(w.earliest, earliest), math.min(w.latest, latest)
  end
  w.least = math.min(w.least, seen.remaining)
  note_tail(s, w, seen.remaining)
  w.own = w.own + 1
  w.seen = math.max(w.seen, down(down(w.first, w.least), w.own + s.in_flight))
end

local function gate_answered(s, told, sent)
  if #told == 0 and #s.windows == 0 then s.silent = true end
  for _, seen in ipairs(told) do
    s.silent = false
    local known
    for i, w in ipairs(s.windows) do
      if w.name == seen.name then known = i end
    end
    if known then
      note(s, known, seen, sent)
    elseif #s.windows < MOST_NAMES then
      local earliest, latest = ends(seen, sent)
      s.windows[#s.windows + 1] = new_window(s, seen, earliest, latest, 0)
    end
  end
end

-- From when on, from now, a request might arrive as the window ends, and prolong it.
local function closing(w, shared)
  if shared then return w.earliest - SECOND end
  if w.latest - w.earliest < SECOND or math.max(w.seen, w.expected) > 0 then return w.earliest - over(window, 240) end
  return w.latest
end

local function is_short(w)
  return w.limit and w.least < over(w.limit, 2)
end

local function window_room(s, w, shared, own)
  if 0 > w.latest then return { more = down(math.min(UNKNOWN, own), s.in_flight) } end
  local left = down(w.least, reserve(s, w))
  local more = down(left, s.in_flight)
  if 0 >= closing(w, shared) and is_short(w) then
    more = 0
  elseif not shared then
    return { more = more, ends = w.latest }
  elseif left > shared.tail then
    more = math.min(more, down(own, s.in_flight))
  elseif 0 >= closing(w, shared) then
    more = 0
  else
    more = math.min(more, down(own, w.tail + s.in_flight))
  end
  return { more = more, ends = w.latest }
end

local function gate_room(s)
  local shared = share(s)
  local own = shared and shared.own or UNBOUNDED
  if #s.windows == 0 then
    return { more = down(s.silent and UNBOUNDED or math.min(UNKNOWN, own), s.in_flight) }
  end
  local widest
  for _, w in ipairs(s.windows) do
    local room = window_room(s, w, shared, own)
    if not widest or room.more >= widest.more then widest = room end
  end
  return widest
end

-- How turns are taken, the loosest first: at once, one in each such time, or none before then.
local AT_ONCE, EVERY, FROM = 0, 1, 2

local function window_turns(s, w, shared, light)
  local more = down(down(w.least, reserve(s, w)), s.in_flight)
  local left_open = math.max(closing(w, shared), 0)
  if not shared then return EVERY, over(left_open, more + 1) end
  local given_away = w.latest - over(window * GIVEN_AWAY, 1000)
  if 0 >= given_away then return AT_ONCE, 0 end
  local expected = by_part(light * s.gateways, w.latest, window)
  local even = by_part(down(w.limit or UNBOUNDED, shared.tail), w.latest, window)
  local is_ahead = more > even + shared.tail
  local spare = is_ahead and more or down(more, expected + math.floor(math.sqrt(expected)) + shared.tail)
  if spare == 0 and light > 0 then return FROM, given_away end
  return EVERY, over(left_open * s.gateways, spare * s.members + s.gateways)
end

local function gate_turns(s, light)
  local shared, kind, time = share(s), nil, nil
  for _, w in ipairs(s.windows) do
    if 0 <= w.latest then
      local k, t = window_turns(s, w, shared, light)
      if not kind or k < kind or (k == kind and t < time) then kind, time = k, t end
    end
  end
  return kind or EVERY, time or 0
end

-- N, and what happens after a no --------------------------------------------------------------------------------------

local function granted_told(s, limit)
  if not s.learn then limit = math.min(limit, s.configured) end
  if limit <= s.granted then
    s.granted, s.higher = limit, { 0, 0 }
    return
  end
  s.higher = s.higher[1] == limit and { limit, s.higher[2] + 1 } or { limit, 1 }
  if s.higher[2] >= AGREEING then s.granted, s.higher = limit, { 0, 0 } end
end

local function block(breaker, wait)
  breaker.no, breaker.ends = 0, math.max(breaker.ends or wait, wait)
  breaker.noes, breaker.good = breaker.noes + 1, 0
end

local function good(breaker, sent)
  if not breaker.ends or sent <= breaker.no then return end
  breaker.good = breaker.good + 1
  if breaker.good > GOOD_ENOUGH then breaker.no, breaker.ends, breaker.noes, breaker.good = nil, nil, 0, 0 end
end

local function breaker_cap(breaker)
  if not breaker.ends then return nil end
  if breaker.ends > 0 then return 0, breaker.ends end
  return breaker.good == 0 and 1 or CAREFUL, nil
end

-- May one more go out? ------------------------------------------------------------------------------------------------

local function room(s)
  local found = { more = UNBOUNDED, by = REQUESTS }
  local tighten = function(more, by, ends)
    if more < found.more then found = { more = more, by = by, ends = ends } end
  end
  for _, no in ipairs({ { s.refused, REFUSED }, { s.edge, EDGE } }) do
    local cap, ends = breaker_cap(no[1])
    if cap then tighten(down(cap, s.in_flight), no[2], ends) end
  end
  tighten(down(part(s), s.used), REQUESTS, next_release())
  local gate = gate_room(s)
  tighten(gate.more, REMAINING, gate.ends)
  return found
end

local function every(s)
  local limit, length = part(s)
  return over(length, math.max(limit, 1))
end

local function is_plenty(s)
  local fair = math.max(over(s.granted * s.members, s.gateways), 1)
  return s.used < over(fair, 2)
end

-- When the next turn is, from now; what lies behind counts, too.
local function due(s, light)
  if is_plenty(s) then return 0 end
  local kind, time = gate_turns(s, light)
  if kind ~= EVERY then return time end
  local limit, length = part(s)
  local by_log = over(next_release() or length, down(limit, s.used) + 1)
  local by_gate = math.min(time, length)
  return s.paced + math.max(over(every(s) * 9, 10), by_log, by_gate)
end

local function took_turn(s, waiting, light)
  local turn, step = due(s, light), every(s)
  s.paced = waiting and math.max(-turn, 0) < step and math.min(turn, step * MOST_PUT_OFF) or 0
end
