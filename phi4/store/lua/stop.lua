-- ARGV: job, final status, error (JSON).
-- Returns {queue to wake or '', the status that the job came to by this or '', its record if that is its end}.
local job = ARGV[1]
local before = redis.call('HGET', k_job(job), 'status')
local wake = stop_job(job, ARGV[2], ARGV[3])
local after = redis.call('HGET', k_job(job), 'status')
return {wake, after ~= before and after or '', ended[job] and redis.call('HGETALL', k_job(job)) or {}}
