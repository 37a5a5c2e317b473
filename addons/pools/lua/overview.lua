-- {name, now_us, news, purses, leases, lives}: what is kept, as flat rows.
local purses, leases, processes = {}, {}, {}
each_purse(function(id, purse)
  purses[#purses + 1] = {id, get(purse, 'limit'), get(purse, 'spent'), get(purse, 'held'), get(purse, 'stranded')}
end)
for holder, life in pairs(lives) do
  processes[#processes + 1] = {holder, life.run, life.seen_us, is_alive(life) and 1 or 0, life.said}
  leases_of(holder, function(number, lease)
    leases[#leases + 1] = {holder, number, lease[1], lease[2], lease[3], lease[4]}
  end)
end
return {redis.call('HGET', HEAD, 'name') or '', NOW, redis.call('LLEN', NEWS), purses, leases, processes}
