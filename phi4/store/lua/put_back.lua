-- ARGV: job, unit, token, '1' when this try counts. A unit of a job that is stopping is dropped instead.
-- Returns as `answer` | {'lost'}.
local job, unit, token = ARGV[1], ARGV[2], ARGV[3]
local again = reported_before(job, unit)
if again then return again end
if not owns(job, unit, token) then return {'lost'} end
if ARGV[4] == '1' then unit_add(job, unit, 'tries', 1) end
local stop = redis.call('HGET', k_job(job), 'stop')
if stop and stop ~= '' and unit ~= 'finish' then
  unlease(job, unit, token)
  unit_set(job, unit, 'state', 'dropped')
  count_out(job, unit, '')
  return reported(job, unit, '', settle_later(job))
end
return reported(job, unit, '', put_back(job, unit, token))
