-- What the load scripts share. A script sets features_per_request and request().

math.randomseed(7)

function name(index)
  return string.format("feature_name_%02d", index)
end

function names(count)
  local all = {}
  for index = 0, count - 1 do all[#all + 1] = name(index) end
  return all
end

function quoted(items)
  return '"' .. table.concat(items, '","') .. '"'
end

-- A JSON object of 10 features with new values.
function features()
  local members = {}
  for index = 0, 9 do
    members[#members + 1] = string.format('"%s":%.12f', name(index), math.random())
  end
  return "{" .. table.concat(members, ",") .. "}"
end

function post(path, body)
  return wrk.format("POST", path, { ["Content-Type"] = "application/json" }, body)
end

-- RESULT requests/s, p50 ms, p99 ms, features/s, failed requests
function done(summary, latency, _)
  local rate = summary.requests / (summary.duration / 1e6)
  local errors = summary.errors
  io.write(string.format("RESULT %.0f %.2f %.2f %.0f %d\n", rate, latency:percentile(50) / 1000,
    latency:percentile(99) / 1000, rate * features_per_request,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
