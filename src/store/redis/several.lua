-- Carries out several commits.
-- KEYS  their main hashes
-- ARGV  for each of them the number of its arguments, and these, as `run` takes them
-- gives the outcomes in order, up to the first item that failed. If that is the very first one, its
-- error is the answer; so an answer that is an error means that no item was carried out
local outcomes, at = {}, 1
for i = 1, #KEYS do
  local fine, outcome = pcall(run, KEYS[i], at + 1)
  if not fine then
    if i == 1 then error(outcome, 0) end
    break
  end
  outcomes[i] = outcome
  at = at + 1 + tonumber(ARGV[at])
end
return outcomes
