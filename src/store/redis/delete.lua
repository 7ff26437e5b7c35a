-- Removes an entity: its hashes, and the history of every feature that has a field in one of them.
-- KEYS  main hash, large hash
-- gives 1 where the entity was there, else 0
local was_there = redis.call('HEXISTS', KEYS[1], '@')
for _, hash in ipairs(KEYS) do
  for _, field in ipairs(redis.call('HKEYS', hash)) do
    redis.call('UNLINK', KEYS[1] .. ':v:' .. field)
  end
end
redis.call('UNLINK', KEYS[1], KEYS[2])
return was_there
