-- ARGV: job, part, token, 'done' | 'failed', where the outcome is kept, usage (JSON object of numbers), error (JSON) or '', worker,
-- lease in ms, engine, model, the last of its text: take, offset, text or '', and '1' when others are to finish the job.
-- Returns as `answer` | {'lost'}.
local job, unit, token, outcome = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local again = reported_before(job, unit)
if again then return again end
if not owns(job, unit, token) then return {'lost'} end
-- Usage may hold fractions (seconds of sound); a number Redis refuses must stop the script before it changed anything else.
for name, amount in pairs(cjson.decode(ARGV[6])) do redis.call('HINCRBYFLOAT', k_job(job), 'usage.' .. name, amount) end
if ARGV[14] ~= '' then say(job, unit, token, ARGV[12], tonumber(ARGV[13]), ARGV[14]) end
unlease(job, unit, token)
unit_set(job, unit, 'state', outcome)
unit_set(job, unit, 'out', ARGV[5])
unit_set(job, unit, 'error', ARGV[7])
unit_set(job, unit, 'ms', now() - tonumber(unit_get(job, unit, 'start_ms')))
if ARGV[10] ~= '' then redis.call('HSET', k_job(job), 'engine', ARGV[10], 'model', ARGV[11]) end
count_out(job, unit, outcome)
local stop = redis.call('HGET', k_job(job), 'stop')
if not stop or stop == '' then admit(job) end
progressed(job, unit)
if ARGV[15] == '1' then return reported(job, unit, '', settle_later(job)) end
return reported(job, unit, settle(job, ARGV[8], tonumber(ARGV[9])), '')
