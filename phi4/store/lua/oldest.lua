-- ARGV: most owners to look at in one queue, queues…
-- Returns for each queue how long the unit that has waited longest, of any owner, has been waiting: milliseconds, -1 when none waits.
local most = tonumber(ARGV[1])
local time = now()
local ages = {}
for n = 2, #ARGV do
  local oldest = -1
  for _, owner in ipairs(redis.call('LRANGE', k_ring(ARGV[n]), 0, most - 1)) do
    local ready = k_ready(ARGV[n], owner)
    -- Finishings stand first, and are gone at once; what has waited long stands behind them.
    local member = redis.call('ZRANGE', ready, '(0', '+inf', 'BYSCORE', 'LIMIT', 0, 1)[1] or redis.call('ZRANGE', ready, 0, 0)[1]
    if member then
      local job, unit = string.match(member, '^([^|]+)|(.+)$')
      -- An older version of the service did not note when a unit became ready.
      local since = unit_get(job, unit, 'ready_ms') or redis.call('HGET', k_job(job), 'created_ms')
      if since then oldest = math.max(oldest, time - tonumber(since)) end
    end
  end
  table.insert(ages, oldest)
end
return ages
