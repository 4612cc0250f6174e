-- What is left to others on the credential: as foreign.rs of `src/budget` has it.

local LEAST_WATCHED_OVER, LEAST_WATCHED_OPEN, ANY = 4, 8, 4294967295

-- What `n` in the time that was watched are in a whole window: half of its requests at most.
local function by_window(w, n, least)
  local watched = math.max(w.told_at - w.first_at, over(window, least))
  return math.min(by_part(n, window, watched), over(w.limit or ANY, 2))
end

local function expected_next(s, w)
  if s.gateways ~= s.members then return w.expected end
  local faded = w.expected - math.ceil(w.expected / 4)
  return math.max(w.seen, by_window(w, w.seen, LEAST_WATCHED_OVER), faded)
end

local function rate_of(w)
  if w.seen == 0 then return w.expected end
  local unsure = w.expected == 0 and math.floor(math.sqrt(4 * w.seen)) or 0
  return math.max(w.seen, w.expected, by_window(w, w.seen + unsure, LEAST_WATCHED_OPEN))
end

local function reserve(s, w)
  local rate, alone = suspected(s), s.gateways == s.members
  if alone then rate = math.max(rate, rate_of(w)) end
  if rate == 0 then return 0 end
  local to_come = by_part(rate, math.max(w.latest, 0), window)
  -- Of several gateways, all that is known is a guess, and a high one: it is not made finer.
  if not alone then return to_come + 4 * math.floor(math.sqrt(to_come)) + 2 end
  return by_part(rate, math.max(w.latest - w.told_at, 0), window) + math.floor(math.sqrt(16 * to_come)) + 2
end
