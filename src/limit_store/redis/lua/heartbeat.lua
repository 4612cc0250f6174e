-- This gateway is there. It tells how many there are, and what is known of the credential, for the time when it cannot be asked.
--
-- ARGV: this gateway, its membership, the latest epoch of parts that it knows. Answers: whether it is a member; all gateways, those
-- that go by the store; the limit, how many of it are used, how many others on the credential use in a window; the epoch of parts (0:
-- not known), the part of each gateway; then name, limit (-1: not told), what is left,
-- nanoseconds to the latest end of each window, and how much earlier it may end.

local gateway, membership, epoch = ARGV[FIRST_ARG], ARGV[FIRST_ARG + 1], tonumber(ARGV[FIRST_ARG + 2])
local member = redis.call('ZSCORE', JOINED, membership)
if member then redis.call('ZADD', JOINED, now, membership) end
redis.call('ZADD', KNOWN, now, gateway)
keep_gateways()
keep_log()

local s = read_state()
redis.call('PEXPIRE', STATE, STATE_LIVES)
count_gateways(s)
release(s)
if member then
  confirm(s, gateway, epoch)
  note_alone(s, gateway)
end
adjust_parts(s)
kept(s)
local answer = {
  member and 1 or 0, s.gateways, s.members, s.granted, s.used, suspected(s), member and s.epoch or 0, member and s.each or 0,
}
for _, w in ipairs(s.windows) do
  if s.gateways == s.members then answer[6] = math.max(answer[6], w.seen, w.expected) end
  if w.latest >= 0 then
    local left = math.min(down(w.least, s.in_flight), down(s.granted, s.used))
    for _, value in ipairs({ w.name, w.limit or -1, left, w.latest, w.latest - w.earliest }) do answer[#answer + 1] = value end
  end
end
write_state(s)
return answer
