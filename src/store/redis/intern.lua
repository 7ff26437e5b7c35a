-- Gives a provenance record its id, the one that it has if it has one.
-- KEYS  the counter of ids, where the id of this record's digest is kept
-- ARGV  what the keys of records begin with, the record, until when to keep it (ms, '' : for ever)
-- gives the id, and until when it is kept (ms, '' : for ever)
local id = redis.call('GET', KEYS[2])
if not id then id = string.format('%.0f', redis.call('INCR', KEYS[1])) end
local record = ARGV[1] .. id

local keep = ARGV[3]
if keep ~= '' then
  -- Twice as long as asked, so that a run that goes on does not come back every time; and for an
  -- hour at least, should the caller's clock be behind.
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  keep = now + math.max((tonumber(keep) - now) * 2, 3600000)
  for _, key in ipairs({ KEYS[2], record }) do
    local left = redis.call('PTTL', key)
    if left == -1 then keep = '' end
    if keep ~= '' and left >= 0 then keep = math.max(keep, now + left) end
  end
  if keep ~= '' then keep = string.format('%.0f', keep) end
end

for _, pair in ipairs({ { KEYS[2], id }, { record, ARGV[2] } }) do
  if keep == '' then
    redis.call('SET', pair[1], pair[2])
  else
    redis.call('SET', pair[1], pair[2])
    redis.call('PEXPIREAT', pair[1], keep)
  end
end
return { id, keep }
