-- SAID: holder.
local holder = SAID[1]
arrive()
strand(holder, false)
end_life(holder)
