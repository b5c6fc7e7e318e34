-- ARGV: job, prepare's token, an earlier job, where the copy of its result is kept, facts about the inputs (JSON).
-- Ends a job in its preparation with what an earlier one had given. Returns as `answer` | {'lost'}.
local job, token, earlier = ARGV[1], ARGV[2], ARGV[3]
local again = reported_before(job, 'prepare')
if again then return again end
if not owns(job, 'prepare', token) then return {'lost'} end
unlease(job, 'prepare', token)
unit_set(job, 'prepare', 'state', 'done')
local time, stop = now(), redis.call('HGET', k_job(job), 'stop')
redis.call('HSET', k_job(job), 'prepared_ms', time, 'inputs', ARGV[5])
if stop and stop ~= '' then return reported(job, 'prepare', '', settle_later(job)) end
local record = redis.call('HGETALL', k_job(earlier))
for i = 1, #record, 2 do
  if string.find(record[i], '^usage%.') then redis.call('HSET', k_job(job), record[i], record[i + 1]) end
end
local done, engine, model = job_get(earlier, 'done', 'engine', 'model')
redis.call('HSET', k_job(job), 'sealed', 1, 'expected', done or 0, 'done', done or 0, 'engine', engine or '', 'model', model or '',
  'started_ms', time, 'result', ARGV[4], 'cached_from', earlier)
conclude(job, 'completed', '')
return reported(job, 'prepare', '', '')
