-- May one more go out? As gate.rs, breaker.rs and machine.rs of `src/budget` have it.

local UNBOUNDED, UNKNOWN, MOST_PUT_OFF, CAREFUL, GIVEN_AWAY = 4294967295, 4, 4, 4, 75
local REQUESTS, REMAINING, PACE, REFUSED, EDGE = 0, 1, 2, 3, 4

-- How long from now the next request is released.
local function next_release(s)
  if s.next == nil then
    local first = redis.call('ZRANGE', LOG, 0, 0, 'WITHSCORES')
    s.next = first[2] and (tonumber(first[2]) - now) * 1000 or false
  end
  return s.next or nil
end

-- The gate ------------------------------------------------------------------------------------------------------------


-- From when on, from now, a request might arrive as the window ends, and prolong it.
local function closing(w, shared)
  if shared then return w.earliest - SECOND end
  if w.latest - w.earliest < SECOND or math.max(w.seen, w.expected) > 0 then return w.earliest - over(window, 240) end
  return w.latest
end

local function is_short(w)
  return w.limit and w.least < over(w.limit, 2)
end

local function window_room(s, w)
  local shared = share(s, w.limit)
  local own = shared and shared.own or UNBOUNDED
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
  if #s.windows == 0 then
    local shared = share(s, s.granted)
    local own = shared and shared.own or UNBOUNDED
    return { more = down(s.silent and UNBOUNDED or math.min(UNKNOWN, own), s.in_flight) }
  end
  local widest
  for _, w in ipairs(s.windows) do
    local room = window_room(s, w)
    if not widest or room.more >= widest.more then widest = room end
  end
  return widest
end

-- How turns are taken, the loosest first: at once, one in each such time, or none before then.
local AT_ONCE, EVERY, FROM = 0, 1, 2

local function window_turns(s, w, light)
  local shared = share(s, w.limit)
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
  local kind, time
  for _, w in ipairs(s.windows) do
    if 0 <= w.latest then
      local k, t = window_turns(s, w, light)
      if not kind or k < kind or (k == kind and t < time) then kind, time = k, t end
    end
  end
  return kind or EVERY, time or 0
end

local function breaker_cap(breaker)
  if not breaker.ends then return nil end
  if breaker.ends > 0 then return 0, breaker.ends end
  return breaker.good == 0 and 1 or CAREFUL, nil
end

-- May one more go out? ------------------------------------------------------------------------------------------------

local function room(s)
  local found = { more = UNBOUNDED, by = REQUESTS }
  local tighten = function(more, by, ends, is_kept)
    if more < found.more then found = { more = more, by = by, ends = ends, is_kept = is_kept } end
  end
  local after_no = function(breaker, by)
    local cap, ends = breaker_cap(breaker)
    if cap then tighten(down(cap, s.in_flight), by, ends) end
  end
  after_no(s.refused, REFUSED)
  after_no(s.edge, EDGE)
  local limit = part(s)
  tighten(down(limit, s.used), REQUESTS, next_release(s))
  tighten(down(down(s.granted, kept(s)), s.used), REQUESTS, nil, true)
  local gate = gate_room(s)
  tighten(gate.more, REMAINING, gate.ends)
  return found
end

local function every(s)
  local limit, length = part(s)
  return over(length, math.max(limit, 1))
end

local function is_half_free(s)
  local fair = math.max(over(s.granted * s.members, s.gateways), 1)
  return s.used < over(fair, 2)
end

local function is_plenty(s)
  local was_wanted = s.wanted >= -window
  return not was_wanted and is_half_free(s)
end

-- What becomes free is kept so long for one that need not take turns and found no room: each asks again sooner (rules.rs).
local KEPT = 150 * 1000000

-- When the next turn is, from now; what lies behind counts, too.
local function due(s, light)
  if is_plenty(s) then return 0 end
  local kind, time = gate_turns(s, light)
  if kind ~= EVERY then return time end
  local limit, length = part(s)
  local by_log = over(next_release(s) or length, down(limit, s.used) + 1)
  local by_gate = math.min(time, length)
  return s.paced + math.max(over(every(s) * 9, 10), by_log, by_gate)
end

local function took_turn(s, waiting, light)
  local turn, step = due(s, light), every(s)
  s.paced = waiting and math.max(-turn, 0) < step and math.min(turn, step * MOST_PUT_OFF) or 0
end
