dofile("benches/wrk/common.lua")

features_per_request = 1000

function request()
  local rows = {}
  for _ = 1, 100 do
    rows[#rows + 1] = string.format('{"entity_id":"%d","features":%s}', math.random(0, 99999), features())
  end
  local body = '{"entity_type":"product","source":"load","run_id":"1","rows":[' .. table.concat(rows, ",") .. "]}"
  return post("/v1/features/write", body)
end
