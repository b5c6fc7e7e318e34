-- ARGV: job, unit that decides ('prepare' or 'finish'), token, status, error (JSON) or '', where the result is kept or ''.
-- From 'prepare' only 'failed' is possible, and parts that already run are waited for. Returns as `answer` | {'lost'}.
local job, unit, token = ARGV[1], ARGV[2], ARGV[3]
local again = reported_before(job, unit)
if again then return again end
if not owns(job, unit, token) then return {'lost'} end
unlease(job, unit, token)
unit_set(job, unit, 'state', 'done')
if unit == 'prepare' then
  redis.call('HSET', k_job(job), 'prepared_ms', now())
  local stop = redis.call('HGET', k_job(job), 'stop')
  if stop and stop ~= '' then return reported(job, unit, '', settle_later(job)) end
  return reported(job, unit, '', stop_job(job, ARGV[4], ARGV[5]))
end
if ARGV[6] ~= '' and not TERMINAL[redis.call('HGET', k_job(job), 'status')] then redis.call('HSET', k_job(job), 'result', ARGV[6]) end
conclude(job, ARGV[4], ARGV[5])
return reported(job, unit, '', '')
