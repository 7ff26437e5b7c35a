-- Carries out one commit of one entity, or nothing of it.
--
-- KEYS  main hash, large hash, then the history of each feature that has one to look after
-- ARGV  expected head ('' : must not exist), until when to keep the entity (ms, '' : for ever),
--       then four lists, each as its length and its members: fields and values of the main hash,
--       fields to take out of it, the same two of the large hash;
--       then for each history: how many to keep (0: remove it; below 0: so many of the new ones
--       alone, in place of what is there), until when to keep it (ms, '' : for ever), and the list
--       of its new scores and members
-- gives 1, or 0 where the head is not the expected one
local main, large = KEYS[1], KEYS[2]

-- Everything is read, and with that its type checked, before anything is written.
local head = redis.call('HGET', main, '@')
if (head or '') ~= ARGV[1] then return 0 end
local has_large = redis.call('HLEN', large) > 0
local counts = {}
for i = 3, #KEYS do counts[i] = redis.call('ZCARD', KEYS[i]) end

local now
local function clock()
  if not now then
    local time = redis.call('TIME')
    now = time[1] * 1000 + math.floor(time[2] / 1000)
  end
  return now
end

local at = 3
local function take() at = at + 1; return ARGV[at - 1] end

-- Lua cannot unpack more than some 8,000 values at once.
local function with_list(command, key)
  local left = tonumber(take())
  while left > 0 do
    local count = math.min(left, 4000)
    redis.call(command, key, unpack(ARGV, at, at + count - 1))
    at = at + count
    left = left - count
  end
end

-- Until when the entity is kept: the later of what was and what is asked.
local keep, renew = ARGV[2], true
local left = redis.call('PTTL', main)
if left == -1 then
  keep, renew = '', false
elseif left >= 0 and keep ~= '' and tonumber(keep) <= clock() + left then
  keep, renew = string.format('%.0f', clock() + left), false
end
local function expire(key, time)
  if time == '' then redis.call('PERSIST', key) else redis.call('PEXPIREAT', key, time) end
end

-- What a server that is out of memory refuses comes first.
with_list('HSET', main)
with_list('HDEL', main)
-- What an evicted main hash left behind is nothing of the new entity.
if not head and has_large then
  redis.call('UNLINK', large)
  has_large = false
end
local new_large = not has_large and ARGV[at] ~= '0'
-- Sets before it removes: an emptied hash would be gone, its expiry with it.
with_list('HSET', large)
with_list('HDEL', large)

for i = 3, #KEYS do
  local key, count = KEYS[i], counts[i]
  if not head and count > 0 then
    redis.call('UNLINK', key)
    count = 0
  end
  local limit, time, added = tonumber(take()), take(), tonumber(ARGV[at])
  if limit == 0 then
    at = at + 1 + added
    if count > 0 then redis.call('UNLINK', key) end
  elseif count > 0 or added > 0 then
    local was, rewritten = -2, limit < 0
    if count > 0 then was = redis.call('PTTL', key) end
    if rewritten then
      if count > 0 then redis.call('UNLINK', key) end
      limit, count = -limit, 0
    end
    with_list('ZADD', key)
    if count + added / 2 > limit then
      redis.call('ZREMRANGEBYRANK', key, 0, string.format('%.0f', -limit - 1))
    end
    if was == -2 then
      if time ~= '' then redis.call('PEXPIREAT', key, time) end
    elseif was >= 0 and (time == '' or tonumber(time) > clock() + was) then
      expire(key, time)
    elseif was >= 0 and rewritten then
      redis.call('PEXPIREAT', key, string.format('%.0f', clock() + was))
    end
  else
    at = at + 1
  end
end

if renew then expire(main, keep) end
if new_large or (has_large and renew) then expire(large, keep) end
return 1
