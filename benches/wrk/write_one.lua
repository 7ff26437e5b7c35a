dofile("benches/wrk/common.lua")

features_per_request = 10

function request()
  local body = '{"features":' .. features() .. ',"source":"load","run_id":"1"}'
  return post("/v1/entities/product/" .. math.random(0, 99999) .. "/features", body)
end
