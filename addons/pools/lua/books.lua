-- What a ledger keeps in a server, and how that moves: kernel/ledger, rule by rule, in Lua. Every script begins with
-- this, after a line with the constants of the kernel.
--
-- All numbers are integers below 2^53, which Lua counts exactly; `..` would round them, so they are written by `text`.
-- All keys have one hash tag, so that a cluster has them in one place.

local SERVER, NAME, SAID = ARGV[1], ARGV[2], cjson.decode(ARGV[3])

local function key(name, id)
  return '{governor}:' .. name .. (id and (':' .. id) or '')
end

local HEAD, LIVES, PURSES, FENCES = key('head'), key('lives'), key('purses'), key('fences')
local COUNTERS, STANDINGS, NEWS, TOLD = key('counters'), key('standings'), key('news'), key('told')
local GONE = key('gone')

local function clock()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000000 + tonumber(time[2])
end

local NOW = clock()

local function text(number)
  return string.format('%.0f', number)
end

local function get(hash, field)
  return tonumber(redis.call('HGET', hash, field) or 0)
end

local function put(hash, field, number)
  redis.call('HSET', hash, field, text(number))
end

local function add(hash, field, number)
  if number ~= 0 then redis.call('HINCRBY', hash, field, text(number)) end
end

-- Calls `each` with every field and value of a hash.
local function pairs_of(hash, each)
  local all = redis.call('HGETALL', hash)
  for place = 1, #all, 2 do each(all[place], all[place + 1]) end
end

-- Windows: the id of a purse is NAME#WINDOW, where NAME is the JSON of budget, unit and agent.

local function parsed(id)
  local name, window = string.match(id, '^(.*)#(%-?%d+)$')
  return name, tonumber(window)
end

local function fence(name, window)
  return name .. '%' .. text(window % KINDS)
end

-- From when on nobody need know of a window; nil for a session's.
local function forgotten_at(window)
  local kind, number = window % KINDS, math.floor(window / KINDS)
  if kind == 0 then return nil end
  local length = ({3600000000, 86400000000, 604800000000})[kind]
  return (kind == 3 and 4 * 86400000000 or 0) + (number + 1) * length + 2 * 86400000000
end

local function is_fenced(name, window, agent)
  local newest = redis.call('HGET', FENCES, fence(name, window))
  if newest and window < tonumber(newest) then return true end
  local ends = forgotten_at(window)
  if ends then return ends <= math.max(NOW, get(HEAD, 'tidied_us')) end
  local standing = agent ~= '' and redis.call('HGET', STANDINGS, 'epoch ' .. agent)
  return standing and math.floor(window / KINDS) < tonumber(standing) + get(STANDINGS, 'session ' .. agent)
end

local function erase(id)
  redis.call('DEL', key('purse', id), key('items', id))
  redis.call('ZREM', PURSES, id)
end

-- Forgets a purse of which nothing is held, if a later window has begun.
local function forget(id)
  local name, window = parsed(id)
  local newest = redis.call('HGET', FENCES, fence(name, window))
  local known = redis.call('EXISTS', key('purse', id)) == 1
  if known and get(key('purse', id), 'held') == 0 and newest and window < tonumber(newest) then erase(id) end
end

-- Begins the account of a purse where there is none.
local function open(id, limit)
  if redis.call('EXISTS', key('purse', id)) == 1 then return end
  local name, window = parsed(id)
  put(key('purse', id), 'limit', limit)
  local ends = forgotten_at(window)
  redis.call('ZADD', PURSES, ends and text(ends) or '+inf', id)
  local newest = redis.call('HGET', FENCES, fence(name, window))
  if newest and window < tonumber(newest) then return end
  put(FENCES, fence(name, window), window)
  if newest then forget(name .. '#' .. newest) end
end

-- Accounts.

local function clamped(number, most)
  return math.max(0, math.min(number, most))
end

local function elsewhere(id, holder)
  local purse = key('purse', id)
  local all, own = get(purse, 'spent') + get(purse, 'held'), get(purse, 'used ' .. holder) + get(purse, 'held ' .. holder)
  return clamped(all - own, MOST)
end

local function move(id, holder, moved)
  local purse = key('purse', id)
  add(purse, 'spent', moved.spent or 0)
  add(purse, 'held', moved.held or 0)
  add(purse, 'stranded', moved.stranded or 0)
  add(purse, 'used ' .. holder, moved.used or 0)
  add(purse, 'held ' .. holder, moved.held or 0)
end

local function log_of(holder)
  return string.match(holder, '^(.*)/[^/]*$') or ''
end

-- Takes it that a number is taken.
local function count(holder, number)
  if number > get(COUNTERS, log_of(holder)) then put(COUNTERS, log_of(holder), number) end
end

local function ask_field(run, ask)
  return run .. ' ' .. text(ask)
end

-- A lease is {id, amount, run, ask, item, lost}.
local function hold(holder, number, lease)
  local id, amount = lease[1], lease[2]
  count(holder, number)
  redis.call('HSET', key('leases', holder), text(number), cmsgpack.pack(lease))
  put(key('asks', holder), ask_field(lease[3], lease[4]), number)
  if amount > get(key('purse', id), 'largest') then put(key('purse', id), 'largest', amount) end
  move(id, holder, {held = amount})
end

local function lease_of(holder, number)
  local packed = redis.call('HGET', key('leases', holder), text(number))
  return packed and cmsgpack.unpack(packed)
end

local function drop(holder, number, lease)
  redis.call('HDEL', key('leases', holder), text(number))
  redis.call('HDEL', key('asks', holder), ask_field(lease[3], lease[4]))
end

local function settle(holder, number, used)
  local lease = lease_of(holder, number)
  if not lease then return end
  local id, amount = lease[1], lease[2]
  used = lease[5] and amount or clamped(used, amount)
  drop(holder, number, lease)
  if lease[6] then return end
  move(id, holder, {held = -amount, spent = used, used = used})
  forget(id)
end

-- Calls `each` with the number and the lease of all that a holder has.
local function leases_of(holder, each)
  pairs_of(key('leases', holder), function(number, packed) each(tonumber(number), cmsgpack.unpack(packed)) end)
end

local function strand(holder, silent)
  leases_of(holder, function(number, lease)
    if lease[6] then return end
    local id, amount = lease[1], lease[2]
    lease[6] = true
    redis.call('HSET', key('leases', holder), text(number), cmsgpack.pack(lease))
    move(id, holder, {held = -amount, spent = amount, used = amount, stranded = silent and amount or 0})
    forget(id)
  end)
end

-- Processes: a life is {run, seen_us, said, asked, lost, owes}, packed.

local lives = {}
pairs_of(LIVES, function(holder, packed)
  local run, seen_us, said, asked, lost, owes = unpack(cmsgpack.unpack(packed))
  lives[holder] = {run = run, seen_us = seen_us, said = said, asked = asked, lost = lost, owes = owes}
end)

local function save(holder)
  local life = lives[holder]
  local row = {life.run, life.seen_us, life.said, life.asked, life.lost, life.owes}
  redis.call('HSET', LIVES, holder, cmsgpack.pack(row))
end

-- What such a one has lost is kept for its next life: GONE has its name.
local function end_life(holder)
  lives[holder] = nil
  redis.call('HSET', GONE, holder, 1)
  redis.call('HDEL', LIVES, holder)
end

local function is_alive(life)
  return life ~= nil and life.run ~= '' and NOW - life.seen_us < LEASE_US
end

local function processes()
  local rows = {}
  for holder, life in pairs(lives) do
    rows[#rows + 1] = {holder, life.run, life.seen_us, is_alive(life) and 1 or 0, life.said}
  end
  return rows
end

local function living()
  local number = 0
  for _, life in pairs(lives) do
    if is_alive(life) then number = number + 1 end
  end
  return number
end

-- An error where this run has not joined, or is over. It has to be asked for before anything is written.
local function stranger(holder, run)
  local life = lives[holder]
  if life and life.run == run then return nil end
  return redis.error_reply('NOTJOINED ' .. holder .. ': run ' .. run ..
    ' is not joined, or another life of it has begun (join again)')
end

local function sweep()
  for holder, life in pairs(lives) do
    if not life.lost and NOW - life.seen_us >= LEASE_US then
      strand(holder, true)
      life.lost = true
      save(holder)
    end
  end
end

-- A server that came back from an older state.

local function each_purse(each)
  for _, id in ipairs(redis.call('ZRANGE', PURSES, 0, -1)) do each(id, key('purse', id)) end
end

local function charge_all()
  local members, owing = 0, 0
  for holder, life in pairs(lives) do
    members, owing = members + 1, owing + (life.owes and 1 or 0)
    life.seen_us, life.owes = NOW, true
    save(holder)
  end
  each_purse(function(_, purse)
    local largest = get(purse, 'largest')
    add(purse, 'spent', largest * members - get(purse, 'share') * owing)
    put(purse, 'share', largest)
  end)
end

local function arrive()
  local server = redis.call('HGET', HEAD, 'server')
  if server == SERVER then return end
  redis.call('HSET', HEAD, 'server', SERVER)
  redis.call('HSETNX', HEAD, 'name', NAME)
  if server then
    put(HEAD, 'changed_us', NOW)
    charge_all()
  end
end

local function lately_changed()
  local changed_us = get(HEAD, 'changed_us')
  return changed_us > 0 and NOW - changed_us < LEASE_US
end

local function recovering()
  if not lately_changed() then return false end
  for _, life in pairs(lives) do
    if life.owes then return true end
  end
  return false
end

local function charge(sign)
  each_purse(function(_, purse) add(purse, 'spent', sign * get(purse, 'share')) end)
end

-- Lets a holder have the leases that its chain says, and no others; into `touched` come the purses of those it had.
local function take_leases(holder, leases, touched)
  local said, kept = {}, {}
  for _, lease in ipairs(leases) do
    if lease[3] > 0 then said[lease[1]] = lease end
  end
  leases_of(holder, function(number, lease)
    kept[number] = true
    if not said[number] and not lease[6] then
      drop(holder, number, lease)
      move(lease[1], holder, {held = -lease[2]})
    end
    touched[lease[1]] = true
  end)
  for number, lease in pairs(said) do
    if not kept[number] then
      open(lease[2], 0)
      hold(holder, number, {lease[2], lease[3], lease[4], lease[5], false})
    end
  end
end

-- What counts as used, by purse, of leases that the chain does not know are lost, and so has not among what it used.
local function lost_of(holder, leases)
  local said, found = {}, {}
  for _, lease in ipairs(leases) do
    if lease[3] > 0 then said[lease[1]] = true end
  end
  leases_of(holder, function(number, lease)
    if lease[6] and said[number] then found[lease[1]] = (found[lease[1]] or 0) + lease[2] end
  end)
  return found
end

-- Takes a word of a chain: totals are {id, limit, used}, leases {number, id, amount, run, ask}. All of a first one, of a
-- later one what was used and which numbers are taken.
local function take(holder, totals, leases, first)
  local touched, lost = {}, lost_of(holder, leases)
  for _, total in ipairs(totals) do
    local id, limit, used = unpack(total)
    open(id, limit)
    local purse = key('purse', id)
    local more = used + (lost[id] or 0) - get(purse, 'used ' .. holder)
    more = clamped(more, MOST - get(purse, 'spent') - get(purse, 'held'))
    move(id, holder, {spent = more, used = more})
    touched[id] = true
  end
  if first then take_leases(holder, leases, touched) end
  for _, lease in ipairs(leases) do count(holder, lease[1]) end
  for id in pairs(touched) do forget(id) end
end
