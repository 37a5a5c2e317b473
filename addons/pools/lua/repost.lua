-- SAID: holder, totals, leases, as `take` has them.
local holder, totals, leases = unpack(SAID)
local life = lives[holder]
if not life then return stranger(holder, '?') end
arrive()
take(holder, totals, leases, life.owes)
if life.owes then
  charge(-1)
  life.owes = false
  save(holder)
end
