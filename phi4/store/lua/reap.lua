-- ARGV: how many times a unit may end its worker while alone, error for that (JSON), error for a missed deadline (JSON), most to do.
-- Puts back work whose lease ran out, stops jobs past their deadline, expires jobs past their time.
-- Returns {units put back ('job|unit|worker')…}, {jobs stopped…}, {records of jobs that ended…}, {jobs expired…}, {queues to wake…}.
local most_deaths, lost_error, deadline_error, limit = tonumber(ARGV[1]), ARGV[2], ARGV[3], ARGV[4]
local time = now()
local put, stopped, expired, wake = {}, {}, {}, {}
local function to_wake(queue) if queue ~= '' then table.insert(wake, queue) end end

local function give_up(job, unit, token)
  unlease(job, unit, token)
  if unit == 'finish' then
    unit_set(job, unit, 'state', 'failed')
    conclude(job, 'failed', lost_error)
  elseif unit == 'prepare' then
    unit_set(job, unit, 'state', 'failed')
    to_wake(stop_job(job, 'failed', lost_error))
  else
    unit_set(job, unit, 'state', 'failed')
    unit_set(job, unit, 'error', lost_error)
    count_out(job, unit, 'failed')
    progressed(job, unit)
    admit(job)
    to_wake(settle_later(job))
  end
end

for _, member in ipairs(redis.call('ZRANGEBYSCORE', k_leases(), '-inf', time, 'LIMIT', 0, limit)) do
  local job, unit, token = string.match(member, '^([^|]+)|([^|]+)|(.+)$')
  if not owns(job, unit, token) then
    redis.call('ZREM', k_leases(), member)
  else
    local stop = redis.call('HGET', k_job(job), 'stop')
    local deaths = 0
    if unit_get(job, unit, 'alone') == '1' then deaths = unit_add(job, unit, 'deaths', 1) end
    unit_set(job, unit, 'suspect', 1)
    table.insert(put, job .. '|' .. unit .. '|' .. unit_get(job, unit, 'worker'))
    if stop and stop ~= '' and unit ~= 'finish' then
      unlease(job, unit, token)
      unit_set(job, unit, 'state', 'dropped')
      count_out(job, unit, '')
      to_wake(settle_later(job))
    elseif deaths >= most_deaths then
      give_up(job, unit, token)
    else
      to_wake(put_back(job, unit, token))
    end
  end
end

for _, job in ipairs(redis.call('ZRANGEBYSCORE', k_deadlines(), '-inf', time, 'LIMIT', 0, limit)) do
  redis.call('ZREM', k_deadlines(), job)
  to_wake(stop_job(job, 'cancelled', deadline_error))
  table.insert(stopped, job)
end

for _, job in ipairs(redis.call('ZRANGEBYSCORE', k_expiries(), '-inf', time, 'LIMIT', 0, limit)) do
  local status, stop = job_get(job, 'status', 'stop')
  if not status then
    redis.call('ZREM', k_expiries(), job)
  elseif TERMINAL[status] or stop == 'expired' then
    -- Its workers have had one round to let go of it; whatever still runs now loses its lease.
    local type, owner = job_get(job, 'type', 'owner')
    if not TERMINAL[status] then finish_job(job, 'expired', '') end
    drop('prepare', owner, job .. '|finish')
    give_whole_share_back(job)
    redis.call('DEL', k_units(job))
    erase_events(job)
    redis.call('HSET', k_job(job), 'status', 'expired')
    redis.call('PUBLISH', k_changes(), job .. ' 0 expired {}')
    for _, field in ipairs(redis.call('HKEYS', k_job(job))) do
      if field ~= 'v' and field ~= 'id' and field ~= 'type' and field ~= 'owner' and field ~= 'status'
        and field ~= 'metadata' and field ~= 'attempts'
        and not string.find(field, '_ms$') then redis.call('HDEL', k_job(job), field) end
    end
    redis.call('ZREM', k_leftovers(), job .. '|' .. redis.call('HGET', k_job(job), 'attempts'))
    redis.call('ZREM', k_expiries(), job)
    redis.call('ZREM', k_index(owner), job)
    table.insert(expired, job)
  else
    to_wake(stop_job(job, 'expired', ''))
    redis.call('HSET', k_job(job), 'stop', 'expired')
  end
end
for queue in pairs(let_in) do to_wake(queue) end
local over = {}
for job in pairs(ended) do table.insert(over, redis.call('HGETALL', k_job(job))) end
return {put, stopped, over, expired, wake}
