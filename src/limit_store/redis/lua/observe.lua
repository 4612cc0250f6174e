-- What answers tell, and what is made of it: as gate.rs, foreign.rs, granted.rs and breaker.rs of `src/budget` have it.

local MOST_NAMES, AGREEING, GOOD_ENOUGH = 4, 3, 4

-- The gate ------------------------------------------------------------------------------------------------------------

local function note_tail(s, w, remaining)
  local shared = share(s, w.limit)
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

local function new_window(s, seen, sent, earliest, latest, expected)
  local w = {
    name = seen.name, limit = seen.limit, earliest = earliest, latest = latest, least = seen.remaining, tail = 0, ours = 0,
    first = seen.remaining, first_at = 0, told_at = sent, own = 0, seen = 0, expected = expected,
  }
  note_tail(s, w, seen.remaining)
  return w
end

-- The bounds of a window's end are combined as ends.rs proves it.
local function note(s, i, seen, sent)
  local w = s.windows[i]
  local earliest, latest = ends(seen, sent)
  if latest < w.earliest then return end
  local may_be_later, may_be_earlier = latest >= w.earliest + window, earliest + window <= w.latest
  if earliest > w.latest or (0 > w.latest and may_be_later) then
    s.windows[i] = new_window(s, seen, sent, earliest, latest, expected_next(s, w))
    return
  end
  if may_be_later then
    w.latest = may_be_earlier and math.max(w.latest, latest) or latest
  elseif not may_be_earlier then
    w.latest = math.min(w.latest, latest)
  end
  w.earliest = math.max(w.earliest, earliest)
  -- Another limit has another tail. Which requests were in that is not known, so all count.
  if seen.limit and seen.limit ~= w.limit then w.limit, w.tail = seen.limit, w.ours end
  w.least = math.min(w.least, seen.remaining)
  note_tail(s, w, seen.remaining)
  w.own, w.told_at = w.own + 1, math.max(w.told_at, sent)
  w.seen = math.max(w.seen, down(down(w.first, w.least), w.own + s.in_flight))
end

local function gate_answered(s, told, sent)
  if #told == 0 and #s.windows == 0 then s.silent = true end
  if #told > 0 then
    -- An answer has all names of the credential: what it lacks is no limit of it any more.
    local kept = {}
    for _, w in ipairs(s.windows) do
      for _, seen in ipairs(told) do
        if seen.name == w.name then
          kept[#kept + 1] = w
          break
        end
      end
    end
    s.windows = kept
  end
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
      s.windows[#s.windows + 1] = new_window(s, seen, sent, earliest, latest, 0)
    end
  end
end

-- N, and what happens after a no --------------------------------------------------------------------------------------

local function granted_told(s, limit)
  if not learn then limit = math.min(limit, configured) end
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
