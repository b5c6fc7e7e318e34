-- ARGV: lease in ms, then members 'job|unit|token'. Renews each lease. Returns per member 'ok', 'stop' or 'lost'.
local lease_ms = tonumber(ARGV[1])
local answers = {}
for i = 2, #ARGV do
  local job, unit, token = string.match(ARGV[i], '^([^|]+)|([^|]+)|(.+)$')
  local stop = redis.call('HGET', k_job(job), 'stop')
  if not owns(job, unit, token) then
    answers[i - 1] = 'lost'
  else
    lease(job, unit, token, lease_ms)
    answers[i - 1] = (stop and stop ~= '' and unit ~= 'finish') and 'stop' or 'ok'
  end
end
return answers
