-- Charges a bucket what a gateway took from it without the store. The bucket is empty afterwards at worst.
--
-- KEYS[1] is the bucket. ARGV: the clock of a test; what the gateway took, and the bucket's depth, in nanoseconds.

local before = time_to_full(KEYS[1])
write_bucket(KEYS[1], math.max(before, math.min(before + tonumber(ARGV[2]), tonumber(ARGV[3]))))
