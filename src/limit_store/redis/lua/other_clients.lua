-- Usage by other clients of the credential, as in src/ratelimit/other_clients.rs.

local LEAST_WATCHED_OVER, LEAST_WATCHED_OPEN, ANY = 4, 8, 4294967295

-- Extrapolates `n` requests in the watched time to a whole window. The result is half of the limit at most.
local function per_window(w, n, least)
  local watched = math.max(w.told_at - w.first_at, divide(window, least))
  return math.min(prorate(n, window, watched), divide(w.limit or ANY, 2))
end

local function expected_next(s, w)
  if s.gateways ~= s.members then return w.expected end
  local faded = w.expected - math.ceil(w.expected / 4)
  return math.max(w.seen, per_window(w, w.seen, LEAST_WATCHED_OVER), faded)
end

local function rate_of(w)
  if w.seen == 0 then return w.expected end
  local unsure = w.expected == 0 and math.floor(math.sqrt(4 * w.seen)) or 0
  return math.max(w.seen, w.expected, per_window(w, w.seen + unsure, LEAST_WATCHED_OPEN))
end

local function reserved_for_others(s, w)
  local rate, is_complete = suspected(s), s.gateways == s.members
  if is_complete then rate = math.max(rate, rate_of(w)) end
  if rate == 0 then return 0 end
  local to_come = prorate(rate, math.max(w.latest, 0), window)
  -- While some gateways are cut off, the rate is a high guess, so a finer calculation is of no use.
  if not is_complete then return to_come + 4 * math.floor(math.sqrt(to_come)) + 2 end
  return prorate(rate, math.max(w.latest - w.told_at, 0), window) + math.floor(math.sqrt(16 * to_come)) + 2
end
