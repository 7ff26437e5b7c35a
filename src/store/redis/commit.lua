-- run(main, packed): carries out one commit of one entity, or nothing of it.
--
-- main    the main hash; the names of the entity's other keys begin with its name
-- packed  a MessagePack list: expected head ('' : must not exist), until when to keep the entity (ms, '' : for
--         ever), the lengths of five lists, the columns of the fifth ('' : none) and their digest, their
--         greatest limit, the number of other histories; then the five lists: the head and the fields
--         of the main hash with their values,
--         fields to take out of it, the same two of the large hash, rows; then for each of the other
--         histories: feature, how many to keep (0: remove it; below 0: so many of the new ones alone,
--         in place of what is there), until when to keep it (ms, '' : for ever), the length of the
--         list of its new scores and members, and that list
-- gives 1, or 0 where the head is not the expected one
--
-- A row is what was written together and is superseded: the event time that all of it shares, and an envelope a
-- column (`rows.rs` has the bytes). The rows of an entity are a list that begins with its columns.
-- That holds while writes name the same features, with event times that grow. Whatever does not
-- fit (other features, a late event, another limit) spills the list into the sorted sets of its
-- features first. So a record in a sorted set is older than every row that has its feature, and the
-- newest of both together, as many as the limit says, are the history.
--
-- Most commits only add a row. What is to be known for that stands behind the head, in a note:
--   |  - if there is no large hash, + if there may be one
--      the digest of the columns (16 bytes)
--      the time of the newest row (8 bytes, as in the row)
--      until when everything is kept (ms, nothing: for ever)
-- There is none while an older record of the columns lies in a sorted set.
local call = redis.call

-- In front of the columns: some of them have older records in sorted sets.
local OLDER = '+'

local now
local function clock()
  if not now then
    local time = call('TIME')
    now = time[1] * 1000 + math.floor(time[2] / 1000)
  end
  return now
end

-- Lua cannot unpack more than some 8,000 values at once.
local function with_list(command, key, list, at, left)
  while left > 0 do
    local count = math.min(left, 4000)
    call(command, key, unpack(list, at, at + count - 1))
    at, left = at + count, left - count
  end
end

local function expire(key, time)
  if time == '' then call('PERSIST', key) else call('PEXPIREAT', key, time) end
end

-- `was`: how long the key had, as PTTL says.
local function keep_longer(key, was, time)
  if was >= 0 and (time == '' or tonumber(time) > clock() + was) then expire(key, time) end
end

-- A little later than asked, so that an entity that is written all the time is not given another
-- expiry, which goes to replicas and files too, by each write.
local function with_room(time)
  local span = tonumber(time) - clock()
  return string.format('%.0f', time + math.max(span, 0) / 32)
end

local function history_of(main, feature) return main .. ':v:' .. feature end

local function time_of(row) return (struct.unpack('<i8', row)) end

-- Some rows beyond the limit stay, so that not each that comes costs one that goes; nobody reads them.
local function trim(rows, length, greatest, columns)
  local oldest = length - greatest
  if oldest > math.min(math.floor(greatest / 4), 8) then
    -- They stand behind the columns.
    call('LSET', rows, oldest, columns)
    call('LPOP', rows, oldest)
  end
end

-- The head and the note behind it.
local function parted(stored)
  local at = stored:find('|', 1, true)
  if not at then return stored end
  return stored:sub(1, at - 1), stored:sub(at + 1)
end

local function noted(bare, digest, row, keep)
  return '|' .. (bare and '-' or '+') .. digest .. row:sub(1, 8) .. keep
end

-- The columns, each with the scores and members that the rows have for it.
local function taken_apart(columns, rows, first)
  local histories = {}
  for feature, limit in columns:gmatch('([%w_]+):(%d+),') do
    histories[#histories + 1] = { feature = feature, limit = tonumber(limit), added = {} }
  end
  for at = first, #rows do
    local row, place = rows[at], 9
    local score = string.format('%.0f', time_of(row))
    for _, history in ipairs(histories) do
      local length, added = row:byte(place), history.added
      added[#added + 1] = score
      added[#added + 1] = row:sub(place + 1, place + length)
      place = place + 1 + length
    end
  end
  return histories
end

-- Adds to a sorted set, of which `count` are there; it is kept at least until `time`.
local function add(key, count, limit, time, list, at, length)
  local was = -2
  if count > 0 then was = call('PTTL', key) end
  with_list('ZADD', key, list, at, length)
  if count + length / 2 > limit then
    call('ZREMRANGEBYRANK', key, 0, string.format('%.0f', -limit - 1))
  end
  if was ~= -2 then
    keep_longer(key, was, time)
  elseif time ~= '' then
    call('PEXPIREAT', key, time)
  end
end

-- As `add`, in place of the `count` that are there; it is kept no shorter than those were.
local function replace(key, count, limit, time, list, at, length)
  if count > 0 then
    local was = call('PTTL', key)
    if was == -1 then
      time = ''
    elseif was >= 0 and time ~= '' and tonumber(time) < clock() + was then
      time = string.format('%.0f', clock() + was)
    end
    call('UNLINK', key)
  end
  if length > 0 then add(key, 0, limit, time, list, at, length) end
end

local function add_all(main, histories, time)
  for _, history in ipairs(histories) do
    local key, added = history_of(main, history.feature), history.added
    add(key, call('ZCARD', key), history.limit, time, added, 1, #added)
  end
end

local function run(main, packed)
  local args = cmsgpack.unpack(packed)
  local head, note = call('HGET', main, '@'), nil
  if head then head, note = parted(head) end
  if (head or '') ~= args[1] then return 0 end
  local keep, set, take, set_large, take_large, new, columns, digest, greatest, others = unpack(args, 2, 11)
  local at = 12
  local first_row = at + set + take + set_large + take_large
  local first_other = first_row + new
  local large, rows = main .. ':large', main .. ':v'
  local bare = note and note:sub(1, 1) == '-'

  -- Where the note says enough.
  if note and new > 0 and take + set_large + others == 0 and (bare or take_large == 0)
    and note:sub(2, 17) == digest and time_of(note:sub(18, 25)) < time_of(args[first_row])
  then
    local kept = note:sub(26)
    if kept == '' or (keep ~= '' and keep <= tonumber(kept)) then
      local length = call('RPUSHX', rows, unpack(args, first_row, first_other - 1)) - 1
      -- Rows that were evicted begin anew.
      if length >= 0 then
        args[at + 1] = args[at + 1] .. noted(bare, digest, args[first_other - 1], kept)
        with_list('HSET', main, args, at, set)
        trim(rows, length, greatest, columns)
        return 1
      end
    end
  end

  -- Everything is read, and with that its type checked, before anything is written.
  local has_large = set_large + take_large > 0 and call('HLEN', large) > 0
  local stored, has_older = false, false
  if head and new + others > 0 then
    stored = call('LINDEX', rows, 0)
    if stored and stored:byte() == OLDER:byte() then stored, has_older = stored:sub(2), true end
  end
  local counts, spills, place = {}, false, first_other
  for i = 1, others do
    local feature, limit, added = args[place], args[place + 1], args[place + 3]
    counts[i] = call('ZCARD', history_of(main, feature))
    if stored and not spills then
      local has = (',' .. stored):find(',' .. feature .. ':', 1, true)
      local as_it_is = added == 0 and (',' .. stored):find(',' .. feature .. ':' .. limit .. ',', 1, true)
      spills = has and not as_it_is
    end
    place = place + 4 + added
  end
  local first = new > 0 and time_of(args[first_row])
  local newest = stored and new > 0 and time_of(call('LINDEX', rows, -1))
  local appends = not spills and newest and newest < first and stored == columns
  local starts, own, spilt, spilt_until = false, nil, nil, ''
  if new > 0 and not appends then
    spills = stored and true
    own = taken_apart(columns, { unpack(args, first_row, first_row + new - 1) }, 1)
    starts, has_older = not newest or newest < first, spills
    for _, history in ipairs(own) do
      local older = call('ZREVRANGE', history_of(main, history.feature), 0, 0, 'WITHSCORES')[2]
      starts = starts and not (older and tonumber(older) >= first)
      has_older = has_older or older
    end
  end
  if spills then
    spilt = taken_apart(stored, call('LRANGE', rows, 0, -1), 2)
    for _, history in ipairs(spilt) do call('ZCARD', history_of(main, history.feature)) end
    local left = call('PTTL', rows)
    if left >= 0 then spilt_until = string.format('%.0f', clock() + left) end
  end
  -- Until when the entity is kept: the later of what was and what is asked.
  local renew = true
  if head then
    local left = call('PTTL', main)
    if left == -1 then
      keep, renew = '', false
    elseif left >= 0 and keep ~= '' and tonumber(keep) <= clock() + left then
      keep, renew = string.format('%.0f', clock() + left), false
    end
  end
  if renew and keep ~= '' then keep = with_room(keep) end
  if (appends or starts) and not has_older then
    if set_large > 0 then bare = false elseif take_large > 0 then bare = not has_large end
    args[at + 1] = args[at + 1] .. noted(bare, digest, args[first_other - 1], keep)
  end

  -- What a server that is out of memory refuses comes first.
  with_list('HSET', main, args, at, set)
  with_list('HDEL', main, args, at + set, take)
  at = at + set + take
  if not head then
    -- What an evicted main hash left behind is nothing of the new entity.
    call('UNLINK', large, rows)
    has_large = false
  end
  -- Sets before it removes: an emptied hash would be gone, its expiry with it.
  with_list('HSET', large, args, at, set_large)
  with_list('HDEL', large, args, at + set_large, take_large)
  if spills then
    add_all(main, spilt, spilt_until)
    call('UNLINK', rows)
  end
  if appends or starts then
    if starts then
      call('RPUSH', rows, has_older and OLDER .. columns or columns)
      if not renew and keep ~= '' then call('PEXPIREAT', rows, keep) end
    end
    local length = call('RPUSH', rows, unpack(args, first_row, first_row + new - 1)) - 1
    if has_older then
      for _, history in ipairs(own or taken_apart(columns, {}, 1)) do
        local key = history_of(main, history.feature)
        if length >= greatest then call('UNLINK', key) else keep_longer(key, call('PTTL', key), keep) end
      end
      if length >= greatest then call('LSET', rows, 0, columns) end
    end
    trim(rows, length, greatest, columns)
  elseif own then
    add_all(main, own, keep)
  end
  at = first_other
  for i = 1, others do
    local key, count = history_of(main, args[at]), counts[i]
    local limit, time, added = args[at + 1], args[at + 2], args[at + 3]
    if spills then
      count = call('ZCARD', key)
    elseif not head and count > 0 then
      call('UNLINK', key)
      count = 0
    end
    if limit == 0 then
      if count > 0 then call('UNLINK', key) end
    elseif limit < 0 then
      replace(key, count, -limit, time, args, at + 4, added)
    elseif count > 0 or added > 0 then
      add(key, count, limit, time, args, at + 4, added)
    end
    at = at + 4 + added
  end

  if renew then
    expire(main, keep)
    if head then
      expire(large, keep)
      expire(rows, keep)
    elseif set_large > 0 and keep ~= '' then
      call('PEXPIREAT', large, keep)
    end
  elseif set_large > 0 and not has_large and keep ~= '' then
    call('PEXPIREAT', large, keep)
  end
  return 1
end
