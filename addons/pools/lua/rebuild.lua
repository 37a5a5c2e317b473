-- SAID: what chains say, each {holder, totals, leases}. What is kept of accounts and processes is forgotten before.
local function joined()
  local changed = redis.call('HGET', HEAD, 'server') ~= SERVER
  local found = {}
  for holder, life in pairs(lives) do
    if is_alive(life) or (changed and life.run ~= '') then found[#found + 1] = holder end
  end
  table.sort(found)
  return found
end

local still = joined()
if #still > 0 then
  return redis.error_reply('JOINED these processes are joined: ' .. table.concat(still, ', ') .. ' (stop them first)')
end
arrive()
put(HEAD, 'changed_us', math.min(get(HEAD, 'changed_us'), NOW - LEASE_US))
-- What a clock that was ahead has closed is open again: what was drawn there is what chains say.
put(HEAD, 'tidied_us', math.min(get(HEAD, 'tidied_us'), NOW))
each_purse(erase)
for holder in pairs(lives) do end_life(holder) end
pairs_of(GONE, function(holder) redis.call('DEL', key('leases', holder), key('asks', holder)) end)
redis.call('DEL', FENCES, COUNTERS, GONE)
for _, post in ipairs(SAID[1]) do
  local holder, totals, leases = unpack(post)
  lives[holder] = {run = '', seen_us = NOW, said = '{}', asked = -1, lost = false, owes = false}
  save(holder)
  take(holder, totals, leases, true)
end
