-- Removes an entity: its hashes, its rows, and the history of every feature that has a field in one of them.
-- KEYS  main hash, large hash
-- ARGV  the expected head ('' : it has none)
-- gives 1 where the entity was there, 0 where it was not, -1 where the head is another
local head = redis.call('HGET', KEYS[1], '@') or ''
if head ~= ARGV[1] then return -1 end
for _, hash in ipairs(KEYS) do
  for _, field in ipairs(redis.call('HKEYS', hash)) do
    redis.call('UNLINK', KEYS[1] .. ':v:' .. field)
  end
end
redis.call('UNLINK', KEYS[1], KEYS[2], KEYS[1] .. ':v')
if head == '' then return 0 end
return 1
