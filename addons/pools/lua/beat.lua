-- SAID: holder, run, the newest news seen, what the process says of itself. {name, now_us, alive, lost, repost, news,
-- how many there are}, of the news those after the ones that were seen, each {kind, agent, origin, said, epoch, session,
-- at_us}, or {} where a number is taken and nobody knows for what.
local holder, run, seen, said = unpack(SAID)
local refusal = stranger(holder, run)
if refusal then return refusal end
arrive()
sweep()
local life = lives[holder]
life.seen_us, life.said = NOW, said
save(holder)
-- Of a state older than what the process has seen: the numbers that it knows are not given again.
local there = redis.call('LLEN', NEWS)
for _ = there + 1, math.min(seen, there + MOST_UNKNOWN) do redis.call('RPUSH', NEWS, '') end
local news = {}
for place, row in ipairs(redis.call('LRANGE', NEWS, text(seen), text(seen + MOST_NEWS - 1))) do
  news[place] = row == '' and {} or cmsgpack.unpack(row)
end
local name = redis.call('HGET', HEAD, 'name')
return {name, NOW, living(), life.lost and 1 or 0, life.owes and 1 or 0, news, redis.call('LLEN', NEWS)}
