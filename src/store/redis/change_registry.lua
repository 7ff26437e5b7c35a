-- Changes the registry if it is at the expected revision.
-- KEYS  the revision, then every hash that is changed
-- ARGV  the expected revision, then for each act: what to do, the number of its hash among KEYS,
--       field, value. 'drop' takes the hash away, 'del' a field; 'put' sets one
-- gives the new revision, or nothing
if (redis.call('GET', KEYS[1]) or '0') ~= ARGV[1] then return false end
local revision = redis.call('INCR', KEYS[1])
for i = 2, #ARGV, 4 do
  local act, key, field, value = ARGV[i], KEYS[tonumber(ARGV[i + 1])], ARGV[i + 2], ARGV[i + 3]
  if act == 'drop' then
    redis.call('UNLINK', key)
  elseif act == 'del' then
    redis.call('HDEL', key, field)
  else
    redis.call('HSET', key, field, value)
  end
end
return revision
