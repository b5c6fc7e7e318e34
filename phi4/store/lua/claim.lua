-- ARGV: queue, worker, lease in ms, newest record version this worker understands.
-- Takes the next unit of the queue. Returns {job, unit, token, tries, suspect, spec, waited, record…} or nil: how long it was
-- ready, in ms, '' when an older version queued it, and the record as it was
-- before, so that the worker which starts the job's first part can tell.
local queue, worker, lease_ms, version = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local member = pop(queue)
while member do
  local job, unit = string.match(member, '^([^|]+)|(.+)$')
  local v, owner, status, stop = job_get(job, 'v', 'owner', 'status', 'stop')
  if v and tonumber(v) > version then
    push(queue, owner, member)
    return nil
  end
  local wanted = status and not TERMINAL[status] and unit_get(job, unit, 'state') == 'ready'
  if wanted and stop and stop ~= '' and unit ~= 'finish' then wanted = false end
  if wanted then
    local record = redis.call('HGETALL', k_job(job))
    local since = unit_get(job, unit, 'ready_ms')
    local waited = since and now() - tonumber(since)
    local token = start(job, unit, worker, lease_ms)
    if is_part(unit) then
      job_add(job, 'ready', -1)
      job_add(job, 'running', 1)
      if status == 'queued' then
        redis.call('HSET', k_job(job), 'status', 'in_progress', 'started_ms', now())
        changed(job, 'in_progress')
        schedule_hook(job, 'job.started')
      end
    elseif unit == 'prepare' then
      redis.call('HSETNX', k_job(job), 'preparing_ms', now())
    end
    return {job, unit, token, unit_get(job, unit, 'tries') or '0', unit_get(job, unit, 'suspect') or '0',
      unit_get(job, unit, 'spec') or '', waited or '', record}
  end
  member = pop(queue)
end
return nil
