-- SAID: holder, and what is settled, each {lease, used}.
local holder, settled = unpack(SAID)
arrive()
for _, each in ipairs(settled) do settle(holder, each[1], each[2]) end
