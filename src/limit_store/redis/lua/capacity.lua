-- Capacity for one more request, as in src/ratelimit/upstream_windows.rs, src/ratelimit/backoff.rs and
-- src/ratelimit/limiter.rs.

local UNBOUNDED, UNKNOWN, MAX_STEPS, RELEASE_PERMILLE = 4294967295, 4, 4, 75

-- Returns the time until the next request leaves the log.
local function next_expiry(s)
  if s.next == nil then
    local first = redis.call('ZRANGE', LOG, 0, 0, 'WITHSCORES')
    s.next = first[2] and (tonumber(first[2]) - now) * 1000 or false
  end
  return s.next or nil
end

-- Cal.com's windows ---------------------------------------------------------------------------------------------------

-- Returns the time from which a request might arrive as the window ends, and prolong it.
local function closing(w, shared)
  if shared then return w.earliest - SECOND end
  if w.latest - w.earliest < SECOND or math.max(w.seen, w.expected) > 0 then return w.earliest - divide(window, 240) end
  return w.latest
end

local function is_short(w)
  return w.limit and w.least < divide(w.limit, 2)
end

local function window_headroom(s, w)
  local shared = replica_share(s, w.limit)
  local own = shared and shared.own or UNBOUNDED
  if 0 > w.latest then return { more = subtract(math.min(UNKNOWN, own), s.in_flight) } end
  local left = subtract(w.least, reserved_for_others(s, w))
  local more = subtract(left, s.in_flight)
  if 0 >= closing(w, shared) and is_short(w) then
    more = 0
  elseif not shared then
    return { more = more, ends = w.latest }
  elseif left > shared.tail then
    more = math.min(more, subtract(own, s.in_flight))
  elseif 0 >= closing(w, shared) then
    more = 0
  else
    more = math.min(more, subtract(own, w.tail + s.in_flight))
  end
  return { more = more, ends = w.latest }
end

local function windows_headroom(s)
  if #s.windows == 0 then
    local shared = replica_share(s, s.granted)
    local own = shared and shared.own or UNBOUNDED
    return { more = subtract(s.silent and UNBOUNDED or math.min(UNKNOWN, own), s.in_flight) }
  end
  local widest
  for _, w in ipairs(s.windows) do
    local headroom = window_headroom(s, w)
    if not widest or headroom.more >= widest.more then widest = headroom end
  end
  return widest
end

-- Pacing of a window, the least restrictive first: none, one request per interval, or no request before a time.
local IMMEDIATE, EVERY, NOT_BEFORE = 0, 1, 2

local function window_pacing(s, w, light)
  local shared = replica_share(s, w.limit)
  local more = subtract(subtract(w.least, reserved_for_others(s, w)), s.in_flight)
  local left_open = math.max(closing(w, shared), 0)
  if not shared then return EVERY, divide(left_open, more + 1) end
  local release = w.latest - divide(window * RELEASE_PERMILLE, 1000)
  if 0 >= release then return IMMEDIATE, 0 end
  local expected = prorate(light * s.gateways, w.latest, window)
  local even = prorate(subtract(w.limit or UNBOUNDED, shared.tail), w.latest, window)
  local is_ahead = more > even + shared.tail
  local spare = is_ahead and more or subtract(more, expected + math.floor(math.sqrt(expected)) + shared.tail)
  if spare == 0 and light > 0 then return NOT_BEFORE, release end
  return EVERY, divide(left_open * s.gateways, spare * s.members + s.gateways)
end

local function windows_pacing(s, light)
  local kind, time
  for _, w in ipairs(s.windows) do
    if 0 <= w.latest then
      local k, t = window_pacing(s, w, light)
      if not kind or k < kind or (k == kind and t < time) then kind, time = k, t end
    end
  end
  return kind or EVERY, time or 0
end

-- The limiter ---------------------------------------------------------------------------------------------------------

-- Returns how many more requests may go, and the reason of the tightest bound.
local function capacity(s)
  local found = { more = UNBOUNDED, by = REQUESTS }
  local tighten = function(more, by, ends, is_reserved)
    if more < found.more then found = { more = more, by = by, ends = ends, is_reserved = is_reserved } end
  end
  local tighten_by_backoff = function(backoff, by)
    local cap, ends = backoff_cap(backoff)
    if cap then tighten(subtract(cap, s.in_flight), by, ends) end
  end
  tighten_by_backoff(s.refused, REFUSED)
  tighten_by_backoff(s.edge, EDGE)
  local limit = members_part(s)
  tighten(subtract(limit, s.used), REQUESTS, next_expiry(s))
  tighten(subtract(subtract(s.granted, reserve_of_parts(s)), s.used), REQUESTS, nil, true)
  local headroom = windows_headroom(s)
  tighten(headroom.more, REMAINING, headroom.ends)
  return found
end

local function interval_of(s)
  local limit, length = members_part(s)
  return divide(length, math.max(limit, 1))
end

local function is_half_free(s)
  local fair = math.max(divide(s.granted * s.members, s.gateways), 1)
  return s.used < divide(fair, 2)
end

local function is_plenty(s)
  local was_wanted = s.wanted >= -window
  return not was_wanted and is_half_free(s)
end

-- Time for which capacity that becomes free is held for an express request that found none. It asks again sooner
-- (src/ratelimit/authority.rs).
local EXPRESS_HOLD = 150 * 1000000

-- Returns the time of the next turn of a fair queue. It is negative if the turn is overdue.
local function next_turn(s, light)
  if is_plenty(s) then return 0 end
  local kind, time = windows_pacing(s, light)
  if kind ~= EVERY then return time end
  local limit, length = members_part(s)
  local by_log = divide(next_expiry(s) or length, subtract(limit, s.used) + 1)
  local by_windows = math.min(time, length)
  return s.paced + math.max(divide(interval_of(s) * 9, 10), by_log, by_windows)
end

local function record_turn(s, waiting, light)
  local turn, step = next_turn(s, light), interval_of(s)
  s.paced = waiting and math.max(-turn, 0) < step and math.min(turn, step * MAX_STEPS) or 0
end
