dofile("benches/wrk/common.lua")

features_per_request = 5000
local prefixed = {}
for _, one in ipairs(names(50)) do prefixed[#prefixed + 1] = "product." .. one end
local rest = ']},"features":[' .. quoted(prefixed) .. "]}"

function request()
  local ids = {}
  for _ = 1, 100 do ids[#ids + 1] = math.random(0, 999) end
  return post("/v1/features/read", '{"entities":{"product":[' .. quoted(ids) .. rest)
end
