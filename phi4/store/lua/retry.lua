-- ARGV: job, attempts as the caller knows them, most units waiting.
-- Runs a failed or cancelled job again, from its preparation: what its parts had given went when it ended.
-- Returns {'ok'}, also when another call has just done it | {'refused', status} | {'full'}.
local job, seen, bound = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local status, attempts, created, deadline = job_get(job, 'status', 'attempts', 'created_ms', 'deadline_ms')
if not status then return {'refused', 'deleted'} end
if tonumber(attempts) == seen + 1 then return {'ok'} end
if (status ~= 'failed' and status ~= 'cancelled') or tonumber(attempts) ~= seen then return {'refused', status} end
if units_waiting() >= bound then return {'full'} end

local time = now()
for _, field in ipairs(redis.call('HKEYS', k_job(job))) do
  if string.find(field, '^usage%.') then redis.call('HDEL', k_job(job), field) end
end
redis.call('HDEL', k_job(job), 'error', 'result', 'stop', 'stop_error', 'engine', 'model', 'preparing_ms', 'prepared_ms',
  'started_ms', 'ended_ms', 'cached_from')
redis.call('HSET', k_job(job), 'status', 'queued', 'attempts', seen + 1, 'retried_ms', time, 'added', 0, 'admitted', 0,
  'ready', 0, 'running', 0, 'done', 0, 'failed', 0, 'sealed', 0, 'expected', 0)
-- Tokens go on counting: a worker that was lost in an earlier run must find its token outdated.
for _, field in ipairs(redis.call('HKEYS', k_units(job))) do
  if not string.find(field, '%.token$') then redis.call('HDEL', k_units(job), field) end
end
if tonumber(deadline) > 0 then
  local again = time + (tonumber(deadline) - tonumber(created))
  redis.call('ZADD', k_deadlines(), again, job)
  keep_shared(k_deadlines())
end
erase_events(job)
enqueue(job, 'prepare')
changed(job, 'queued')
return {'ok'}
