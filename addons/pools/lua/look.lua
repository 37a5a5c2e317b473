-- SAID: ids of purses. {name, now_us, news, purses, lives}: of the purses those that are known, as flat rows.
local purses = {}
for _, id in ipairs(SAID[1]) do
  local purse = key('purse', id)
  if redis.call('EXISTS', purse) == 1 then
    purses[#purses + 1] = {id, get(purse, 'limit'), get(purse, 'spent'), get(purse, 'held'), get(purse, 'stranded')}
  end
end
return {redis.call('HGET', HEAD, 'name') or '', NOW, redis.call('LLEN', NEWS), purses, processes()}
