-- Back-off after a refusal, as in src/ratelimit/backoff.rs: the number of requests in flight that it admits.

local REQUESTS, REMAINING, PACE, REFUSED, EDGE = 0, 1, 2, 3, 4
local CAREFUL = 4

-- Returns nil if there is no back-off. The second value is the end of the block.
local function backoff_cap(backoff)
  if not backoff.ends then return nil end
  if backoff.ends > 0 then return 0, backoff.ends end
  return backoff.successes == 0 and 1 or CAREFUL, nil
end
