-- SAID: holder, run, what the process says of itself. The leases that earlier lives left, {number, id, amount, run, ask}.
local holder, run, said = unpack(SAID)

local function tidy()
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', PURSES, '-inf', text(NOW))) do
    if get(key('purse', id), 'held') == 0 then
      local name, window = parsed(id)
      erase(id)
      if redis.call('HGET', FENCES, fence(name, window)) == text(window) then
        redis.call('HDEL', FENCES, fence(name, window))
      end
    end
  end
  put(HEAD, 'tidied_us', math.max(NOW, get(HEAD, 'tidied_us')))
  for each, life in pairs(lives) do
    if NOW - life.seen_us >= FORGOTTEN_US then end_life(each) end
  end
end

local function newcomer()
  if not lately_changed() then return false end
  charge(1)
  return true
end

arrive()
sweep()
tidy()
local life = lives[holder]
if not life then
  life = {run = run, asked = -1, owes = newcomer()}
elseif life.run ~= run then
  life = {run = run, asked = -1, owes = life.owes}
end
life.seen_us, life.said, life.lost = NOW, said, false
lives[holder] = life
save(holder)
redis.call('HDEL', GONE, holder)
local left = {}
leases_of(holder, function(number, lease)
  if lease[3] ~= run then left[#left + 1] = {number, lease[1], lease[2], lease[3], lease[4]} end
end)
return left
