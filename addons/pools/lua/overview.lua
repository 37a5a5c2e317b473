-- {name, now_us, news, ids of purses, leases, lives}: what is kept, as flat rows; the purses are asked for by look.lua.
local leases = {}
for holder in pairs(lives) do
  leases_of(holder, function(number, lease)
    if not lease[6] then leases[#leases + 1] = {holder, number, lease[1], lease[2], lease[3], lease[4]} end
  end)
end
local ids = redis.call('ZRANGE', PURSES, 0, -1)
return {redis.call('HGET', HEAD, 'name') or '', NOW, redis.call('LLEN', NEWS), ids, leases, processes()}
