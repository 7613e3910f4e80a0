-- SPDX-License-Identifier: BSD-2-Clause
--
-- wrk sends requests drawn at random from a file of ready-made ones, each a
-- line with its line ends written as \r\n.  REQUESTS names the file.  PACE, if
-- given, is how many milliseconds a connection rests on average between two.

local requests = {}

for line in io.lines(os.getenv("REQUESTS")) do
    requests[#requests + 1] = line:gsub("\\r\\n", "\r\n")
end

local random, n = math.random, #requests

local pace = tonumber(os.getenv("PACE") or "0")

if pace > 0 then
    function delay()
        return random(2 * pace)
    end
end

function init()
    math.randomseed(os.time())
end

function request()
    return requests[random(n)]
end

function done(summary, latency)
    io.write(string.format("RESULT requests=%d duration=%d p50=%d p99=%d failed=%d status=%d\n",
        summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
        summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout,
        summary.errors.status))
end
