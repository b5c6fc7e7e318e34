-- ARGV: job. Erases everything Redis knows of it; work that still runs loses its lease. Returns 1 if there was one.
local job = ARGV[1]
local owner = redis.call('HGET', k_job(job), 'owner')
if not owner then return 0 end
local queue, attempts, idempotency = job_get(job, 'queue', 'attempts', 'idempotency')
if queue then drop_waiting(job) give_whole_share_back(job) drop('prepare', owner, job .. '|finish') end
for attempt = 1, tonumber(attempts or 1) do
  redis.call('ZREM', k_leftovers(), job .. '|' .. attempt)
  for _, event in ipairs(HOOK_EVENTS) do
    local hook = job .. '|' .. event .. '|' .. attempt
    local url = redis.call('HGET', k_hook(hook), 'url')
    if url then
      hook_over(hook, host_of(url))
      hook_back(hook, host_of(url))
      redis.call('DEL', k_hook(hook), k_hook_tries(hook))
    end
  end
end
if idempotency and idempotency ~= '' then
  local name = k_idempotency(owner, idempotency)
  if string.find(redis.call('GET', name) or '', job .. ' ', 1, true) == 1 then redis.call('DEL', name) end
end
redis.call('DEL', k_job(job), k_units(job))
erase_events(job)
redis.call('ZREM', k_index(owner), job)
redis.call('ZREM', k_expiries(), job)
redis.call('ZREM', k_deadlines(), job)
redis.call('PUBLISH', k_changes(), job .. ' 0 deleted {}')
return 1
