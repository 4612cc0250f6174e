-- wrk: every request with the next key of the list, as many callers would send them.
-- METHOD, TARGET, KEYS (a file of Authorization values) and BODY (bytes) come from the environment.
local requests, last = {}, 0

function init(_)
    local headers = { ["Content-Type"] = "application/json" }
    if os.getenv("RELAY") then headers["Host"], headers["X-Request-Id"] = os.getenv("RELAY"), "relay" end
    local bytes = tonumber(os.getenv("BODY"))
    local body = bytes > 0 and ('"' .. string.rep("x", bytes - 2) .. '"') or nil
    for key in io.lines(os.getenv("KEYS")) do
        headers["Authorization"] = key
        requests[#requests + 1] = wrk.format(os.getenv("METHOD"), os.getenv("TARGET"), headers, body)
    end
end

function request()
    last = last % #requests + 1
    return requests[last]
end

function done(summary, latency, _)
    local e = summary.errors
    local failed = e.connect + e.read + e.write + e.status + e.timeout
    io.write(string.format("RESULT %d %d %d\n", summary.requests, summary.duration, failed))
end
