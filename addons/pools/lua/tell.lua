-- SAID: kind, agent, origin, what is said, epoch, session. {number, epoch, session, at_us, said}.
local kind, agent, origin, said, epoch, session = unpack(SAID)
arrive()
local told = key('told')
local field = kind .. '\n' .. agent .. '\n' .. origin

local function answer(number)
  local row = cmsgpack.unpack(redis.call('LINDEX', NEWS, text(number - 1)))
  return {number, row[5], row[6], row[7], row[4]}
end

local known = redis.call('HGET', told, field)
if known then return answer(tonumber(known)) end
local epochs, sessions = get(STANDINGS, 'epoch ' .. agent), get(STANDINGS, 'session ' .. agent)
if (kind == 'halt' or kind == 'halt-all') and epoch < epochs then return {0, epochs, sessions, NOW, said} end
epochs, sessions = math.max(epochs, epoch), math.max(sessions, session)
if kind == 'release' or kind == 'release-all' then epochs = epochs + 1 end
if kind == 'session' then sessions = sessions + 1 end
if epochs + sessions > 0 then
  put(STANDINGS, 'epoch ' .. agent, epochs)
  put(STANDINGS, 'session ' .. agent, sessions)
end
local row = cmsgpack.pack({kind, agent, origin, said, epochs, sessions, NOW})
local number = redis.call('RPUSH', NEWS, row)
put(told, field, number)
return answer(number)
