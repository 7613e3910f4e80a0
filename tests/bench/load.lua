-- SPDX-License-Identifier: BSD-2-Clause
--
-- wrk sends requests drawn at random from a file of ready-made ones, each a
-- line with its line ends written as \r\n.  REQUESTS names the file.

local requests = {}

for line in io.lines(os.getenv("REQUESTS")) do
    requests[#requests + 1] = line:gsub("\\r\\n", "\r\n")
end

local random, n = math.random, #requests

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
