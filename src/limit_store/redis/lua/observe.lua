-- Merges what responses report, as in src/ratelimit/upstream_windows.rs, src/ratelimit/effective_limit.rs and
-- src/ratelimit/backoff.rs.

local MAX_NAMES, AGREEING_READINGS, ENOUGH_SUCCESSES = 4, 3, 4

-- Cal.com's windows ---------------------------------------------------------------------------------------------------

local function record_tail(s, w, remaining)
  local shared = replica_share(s, w.limit)
  w.ours = w.ours + 1
  if shared and subtract(remaining, reserved_for_others(s, w)) < shared.tail then w.tail = w.tail + 1 end
end

-- Returns the earliest and the latest end of a window by one response. The first request of a window gives the closest bounds.
local function window_ends(reading, sent)
  if reading.limit and reading.remaining + 1 == reading.limit and math.abs(reading.reset - window) < SECOND then
    return sent + window, window + divide(window, 256)
  end
  return sent + reading.reset - SECOND, reading.reset + SECOND
end

local function new_window(s, reading, sent, earliest, latest, expected)
  local w = {
    name = reading.name, limit = reading.limit, earliest = earliest, latest = latest, least = reading.remaining, tail = 0,
    ours = 0, first = reading.remaining, first_at = 0, told_at = sent, own = 0, seen = 0, expected = expected,
  }
  record_tail(s, w, reading.remaining)
  return w
end

-- Merges a reading into window `i`. src/ratelimit/ends.rs has the proof for the bounds of its end.
local function merge_reading(s, i, reading, sent)
  local w = s.windows[i]
  local earliest, latest = window_ends(reading, sent)
  if latest < w.earliest then return end
  local may_be_later, may_be_earlier = latest >= w.earliest + window, earliest + window <= w.latest
  if earliest > w.latest or (0 > w.latest and may_be_later) then
    s.windows[i] = new_window(s, reading, sent, earliest, latest, expected_next(s, w))
    return
  end
  if may_be_later then
    w.latest = may_be_earlier and math.max(w.latest, latest) or latest
  elseif not may_be_earlier then
    w.latest = math.min(w.latest, latest)
  end
  w.earliest = math.max(w.earliest, earliest)
  -- Another limit has another tail. It is not known which requests are in it, so all of them count.
  if reading.limit and reading.limit ~= w.limit then w.limit, w.tail = reading.limit, w.ours end
  w.least = math.min(w.least, reading.remaining)
  record_tail(s, w, reading.remaining)
  w.own, w.told_at = w.own + 1, math.max(w.told_at, sent)
  w.seen = math.max(w.seen, subtract(subtract(w.first, w.least), w.own + s.in_flight))
end

local function observe_windows(s, readings, sent)
  if #readings == 0 and #s.windows == 0 then s.silent = true end
  if #readings > 0 then
    -- A response has all names of the credential. A name that it lacks is no longer a limit of the credential.
    local kept = {}
    for _, w in ipairs(s.windows) do
      for _, reading in ipairs(readings) do
        if reading.name == w.name then
          kept[#kept + 1] = w
          break
        end
      end
    end
    s.windows = kept
  end
  for _, reading in ipairs(readings) do
    s.silent = false
    local known
    for i, w in ipairs(s.windows) do
      if w.name == reading.name then known = i end
    end
    if known then
      merge_reading(s, known, reading, sent)
    elseif #s.windows < MAX_NAMES then
      local earliest, latest = window_ends(reading, sent)
      s.windows[#s.windows + 1] = new_window(s, reading, sent, earliest, latest, 0)
    end
  end
end

-- The limit, and the back-off after a refusal -------------------------------------------------------------------------

local function observe_limit(s, limit)
  if not learn then limit = math.min(limit, configured) end
  if limit <= s.granted then
    s.granted, s.higher = limit, { 0, 0 }
    return
  end
  s.higher = s.higher[1] == limit and { limit, s.higher[2] + 1 } or { limit, 1 }
  if s.higher[2] >= AGREEING_READINGS then s.granted, s.higher = limit, { 0, 0 } end
end

local function block(backoff, wait)
  backoff.at, backoff.ends = 0, math.max(backoff.ends or wait, wait)
  backoff.refusals, backoff.successes = backoff.refusals + 1, 0
end

local function record_success(backoff, sent)
  if not backoff.ends or sent <= backoff.at then return end
  backoff.successes = backoff.successes + 1
  if backoff.successes > ENOUGH_SUCCESSES then
    backoff.at, backoff.ends, backoff.refusals, backoff.successes = nil, nil, 0, 0
  end
end
