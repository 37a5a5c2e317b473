-- SAID: holder, run, the clock of the process, and asks, each {number, name, window, agent, limit, least, want, item,
-- each_us, burst}. For each ask {id, amount, lease or -1, elsewhere, wait_us, why}.
local holder, run, their_now, asks = unpack(SAID)

local function nothing(id, why)
  return {id, 0, -1, elsewhere(id, holder), 0, why}
end

-- How many turns must be counted as drawn by now, and how many others have in hand.
local function hands(rate)
  local drawn, others = 0, 0
  pairs_of(rate, function(field, number)
    local who = string.match(field, '^hand (.*)$')
    if who and (who == holder or not is_alive(lives[who])) then
      drawn = drawn + tonumber(number)
      redis.call('HDEL', rate, field)
    elseif who then
      others = others + tonumber(number)
    end
  end)
  return drawn, others
end

-- A rate of which all is there is like one that nobody knows, unless turns are in hands.
local function keep_rate(rate, due, in_hands)
  put(rate, 'due', due)
  if in_hands > 0 then
    redis.call('PERSIST', rate)
  else
    redis.call('PEXPIREAT', rate, text(math.ceil(due / 1000)))
  end
end

local function turns(id, least, want, each_us, burst)
  local rate, changed_us = key('rate', id), get(HEAD, 'changed_us')
  local drawn, others = hands(rate)
  local due = get(rate, 'due')
  if changed_us > 0 then due = math.max(due, changed_us + burst * each_us) end
  if due > NOW + burst * each_us then due = NOW + (burst - 1) * each_us end
  local start = math.max(due, NOW) + drawn * each_us
  local room = math.floor((NOW + burst * each_us - start) / each_us) - others
  if room < least then
    keep_rate(rate, start, others)
    return {id, 0, -1, 0, start + (least + others - burst) * each_us - NOW, 'exhausted'}
  end
  local free = math.max(0, math.floor((burst - 1) / 2) - others)
  local amount = math.max(least, math.min(want, room, least + free))
  if amount > least then put(rate, 'hand ' .. holder, amount - least) end
  keep_rate(rate, start + least * each_us, others + amount - least)
  return {id, amount, -1, 0, 0, ''}
end

-- Why nothing is granted, however much there is.
local function refused(name, window, agent)
  if math.abs(their_now - NOW) > CLOCKS_APART_US then return 'clock' end
  if lives[holder].owes or recovering() then return 'recovering' end
  if is_fenced(name, window, agent) then return 'fenced' end
end

-- As much as `want`, at most this process' share of what is left; nothing where less than `least` is left.
local function drawn(id, limit, least, want)
  local left = math.max(0, limit - get(key('purse', id), 'spent') - get(key('purse', id), 'held'))
  if least < 0 or left < least then return 0 end
  return math.max(least, math.min(want, math.floor(left / (PROCESSES_SHARE * living()))))
end

local function grant(id, number, limit, least, want, item)
  open(id, limit)
  put(key('purse', id), 'limit', limit)
  if item ~= '' then least, want = 1, 1 end
  local amount = drawn(id, limit, least, want)
  if amount == 0 then return nothing(id, 'exhausted') end
  local lease = get(COUNTERS, log_of(holder)) + 1
  hold(holder, lease, {id, amount, run, number, item ~= ''})
  if item ~= '' then redis.call('SADD', key('items', id), item) end
  return {id, amount, lease, elsewhere(id, holder), 0, ''}
end

local function answer(number, name, window, agent, limit, least, want, item, each_us, burst)
  local id = name .. '#' .. text(window)
  if each_us > 0 then return turns(id, least, want, each_us, burst) end
  local before = redis.call('HGET', key('asks', holder), ask_field(run, number))
  local lease = before and lease_of(holder, tonumber(before))
  if lease then return {lease[1], lease[2], tonumber(before), elsewhere(lease[1], holder), 0, ''} end
  local why, asked = refused(name, window, agent), lives[holder].asked
  lives[holder].asked = math.max(asked, number)
  if why then return nothing(id, why) end
  if item ~= '' and redis.call('SISMEMBER', key('items', id), item) == 1 then
    return {id, 1, -1, elsewhere(id, holder), 0, ''}
  end
  if number <= asked then return nothing(id, 'stale') end
  return grant(id, number, limit, least, want, item)
end

local refusal = stranger(holder, run)
if refusal then return refusal end
arrive()
sweep()
lives[holder].seen_us, lives[holder].lost = NOW, false
local answers = {}
for place, ask in ipairs(asks) do answers[place] = answer(unpack(ask)) end
save(holder)
return answers
