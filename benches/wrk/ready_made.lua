-- Sends the requests in the file that REQUESTS names, separated by zero bytes, in random order.

local requests = {}
for one in io.open(os.getenv("REQUESTS"), "rb"):read("*a"):gmatch("[^%z]+") do
  requests[#requests + 1] = one
end
math.randomseed(7)

function request()
  return requests[math.random(#requests)]
end

-- RESULT requests/s, p50 ms, p99 ms, requests, failed requests
function done(summary, latency, _)
  local errors = summary.errors
  io.write(string.format("RESULT %.1f %.3f %.3f %d %d\n", summary.requests / (summary.duration / 1e6),
    latency:percentile(50) / 1000, latency:percentile(99) / 1000, summary.requests,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
