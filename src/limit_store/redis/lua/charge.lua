-- Charges a bucket one token, without a budget.
--
-- KEYS[1] is the bucket. ARGV: the clock of a test; the bucket's interval and depth in nanoseconds.
-- Returns whether it charged the token, and the time until the bucket is full.

local charged, ahead = charge(KEYS[1], tonumber(ARGV[2]), tonumber(ARGV[3]))
return { charged and 1 or 0, ahead }
