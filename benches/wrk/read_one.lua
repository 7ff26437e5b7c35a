dofile("benches/wrk/common.lua")

features_per_request = 10
local query = "/features?names=" .. table.concat(names(10), ",")

function request()
  return wrk.format("GET", "/v1/entities/product/" .. math.random(0, 999) .. query)
end
