-- Keeps a membership alive. The reply is what a gateway needs while the store is unavailable.
--
-- ARGV: this gateway, its membership, the latest epoch of parts that it knows.
-- Returns: whether it is a member; the number of gateways, and of those for which the store decides; the limit, how many
-- requests of it are used, how many requests other clients of the credential send in a window; the epoch of parts (0:
-- unknown), the part of each gateway; then of each window its name, its limit (-1: unknown), what remains, the nanoseconds
-- to its latest end, and the time by which it may end earlier.

local gateway, membership, epoch = ARGV[FIRST_ARG], ARGV[FIRST_ARG + 1], tonumber(ARGV[FIRST_ARG + 2])
local member = redis.call('ZSCORE', JOINED, membership)
if member then redis.call('ZADD', JOINED, now, membership) end
redis.call('ZADD', KNOWN, now, gateway)
expire_gateways()
extend_log()

local s = read_state()
redis.call('PEXPIRE', STATE, STATE_LIFE)
count_gateways(s)
expire_requests(s)
if member then
  confirm_epoch(s, gateway, epoch)
  detect_alone(s, gateway)
end
adjust_parts(s)
reserve_of_parts(s)
local reply = {
  member and 1 or 0, s.gateways, s.members, s.granted, s.used, suspected(s), member and s.epoch or 0, member and s.each or 0,
}
for _, w in ipairs(s.windows) do
  if s.gateways == s.members then reply[6] = math.max(reply[6], w.seen, w.expected) end
  if w.latest >= 0 then
    local left = math.min(subtract(w.least, s.in_flight), subtract(s.granted, s.used))
    for _, value in ipairs({ w.name, w.limit or -1, left, w.latest, w.latest - w.earliest }) do reply[#reply + 1] = value end
  end
end
write_state(s)
return reply
