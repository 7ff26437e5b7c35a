-- Carries out several commits.
-- KEYS  their main hashes
-- ARGV  what is to be done with each of them, as `run` takes it
-- gives the outcomes in order, up to the first item that failed. If that is the very first one, its
-- error is the answer; so an answer that is an error means that no item was carried out
local outcomes = {}
for i = 1, #KEYS do
  local fine, outcome = pcall(run, KEYS[i], ARGV[i])
  if not fine then
    if i == 1 then error(outcome, 0) end
    break
  end
  outcomes[i] = outcome
end
return outcomes
