-- ARGV: job, prepare's token, number of the first spec, specs (JSON list of strings), parts expected or 0, '1' when these are all,
-- facts about the inputs (JSON) or '', worker, lease in ms. Adds parts; a part known from an earlier try is left as it is.
-- Returns as `answer` | {'lost'}.
local job, token, first, specs = ARGV[1], ARGV[2], tonumber(ARGV[3]), cjson.decode(ARGV[4])
local expected, sealed, inputs, worker, lease_ms = tonumber(ARGV[5]), ARGV[6], ARGV[7], ARGV[8], tonumber(ARGV[9])
local again = reported_before(job, 'prepare')
if again then return again end
if not owns(job, 'prepare', token) then return {'lost'} end

local added, stop = job_get(job, 'added', 'stop')
added = tonumber(added)
local stopping = stop and stop ~= ''
for i, spec in ipairs(specs) do
  local n = first + i - 1
  if n == added and not stopping then
    unit_set(job, n, 'spec', spec)
    unit_set(job, n, 'load', load_of(job, spec))
    unit_set(job, n, 'state', 'held')
    added = added + 1
    redis.call('HSET', k_job(job), 'added', added)
    redis.call('HINCRBY', k_backlog(), 'held', 1)
  end
end
if expected > 0 then redis.call('HSET', k_job(job), 'expected', expected) end
if inputs ~= '' then redis.call('HSET', k_job(job), 'inputs', inputs) end

local finish = ''
if sealed == '1' then
  redis.call('HSET', k_job(job), 'sealed', 1, 'expected', added, 'prepared_ms', now())
  unit_set(job, 'prepare', 'state', 'done')
  unlease(job, 'prepare', token)
end
if not stopping then admit(job) end
if sealed == '1' then finish = settle(job, worker, lease_ms) end
return reported(job, 'prepare', finish, '')
