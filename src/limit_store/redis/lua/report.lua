-- Takes from a consumer's bucket what a gateway has handed out by itself. That may empty it, and leaves it empty at worst.
--
-- KEYS[1] is the bucket; ARGV: the clock of a test, what was handed out and the bucket's depth, in nanoseconds.

local before = ahead_of(KEYS[1])
keep(KEYS[1], math.max(before, math.min(before + tonumber(ARGV[2]), tonumber(ARGV[3]))))
