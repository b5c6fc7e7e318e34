-- ARGV: job, most to count. Returns how many units go before the job's first waiting unit in its queue, or -1 when none waits.
local job, most = ARGV[1], tonumber(ARGV[2])
local owner, admitted = job_get(job, 'owner', 'admitted')
if not owner or not admitted then return -1 end
local unit, queue = 'prepare', 'prepare'
if unit_get(job, 'prepare', 'state') ~= 'ready' then
  unit = nil
  for n = 0, tonumber(admitted) - 1 do
    if unit_get(job, n, 'state') == 'ready' then unit = tostring(n) break end
  end
  if not unit then return -1 end
  queue = queue_of(job, unit)
end
local mine = redis.call('ZRANK', k_ready(queue, owner), job .. '|' .. unit)
if not mine then return -1 end
-- Owners take turns: those before this one in the ring go once more than those after it.
local ahead, turns = mine, mine + 1
for _, other in ipairs(redis.call('LRANGE', k_ring(queue), 0, most)) do
  if other == owner then
    turns = mine
  else
    ahead = ahead + math.min(redis.call('ZCARD', k_ready(queue, other)), turns)
  end
  if ahead >= most then return most end
end
return ahead
