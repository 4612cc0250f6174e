-- Takes one token from a consumer's bucket, where nothing is asked of a budget.
--
-- KEYS[1] is the bucket; ARGV: the clock of a test, the bucket's interval and depth in nanoseconds. Answers: whether it was
-- taken, and how far the bucket's being full lies ahead.

local charged, ahead = take(KEYS[1], tonumber(ARGV[2]), tonumber(ARGV[3]))
return { charged and 1 or 0, ahead }
