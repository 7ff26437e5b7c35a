-- Runs a script, here the function run(KEYS, ARGV), for each of several items.
-- KEYS  those of every item, one item after the other
-- ARGV  for each item the number of its keys, the number of its arguments, and these
-- gives the outcomes in order, up to the first item that failed. If that is the very first one, its
-- error is the answer; so an answer that is an error means that no item was carried out
local outcomes, key, at = {}, 1, 1
while at <= #ARGV do
  local keys, args = tonumber(ARGV[at]), tonumber(ARGV[at + 1])
  local fine, outcome = pcall(run, { unpack(KEYS, key, key + keys - 1) }, { unpack(ARGV, at + 2, at + 1 + args) })
  if not fine then
    if #outcomes == 0 then error(outcome, 0) end
    break
  end
  outcomes[#outcomes + 1] = outcome
  key, at = key + keys, at + 2 + args
end
return outcomes
