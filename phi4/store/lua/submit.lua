-- ARGV: job, owner, fields (JSON object), deadline in s or 0, expiry in s, most units waiting, idempotency key or '',
-- fingerprint. Returns {'created'} | {'replayed', job} | {'mismatch'} | {'full'}.
local job, owner, fields = ARGV[1], ARGV[2], cjson.decode(ARGV[3])
local deadline_s, expires_s, bound = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local idempotency, fingerprint = ARGV[7], ARGV[8]

if idempotency ~= '' then
  local seen = redis.call('GET', k_idempotency(owner, idempotency))
  if seen and string.sub(seen, 1, 8) ~= 'pending ' then
    local known, print = string.match(seen, '^(%S+) (%S*)$')
    if print ~= fingerprint then return {'mismatch'} end
    return {'replayed', known}
  end
end

-- The client library may send the same call twice when an answer got lost.
if redis.call('EXISTS', k_job(job)) == 1 then return {'created'} end

if units_waiting() >= bound then return {'full'} end

local time = now()
local expires_ms = time + expires_s * 1000
local flat = {}
for name, value in pairs(fields) do table.insert(flat, name) table.insert(flat, value) end
redis.call('HSET', k_job(job), unpack(flat))
redis.call('HSET', k_job(job), 'id', job, 'owner', owner, 'status', 'queued', 'created_ms', time, 'expires_ms', expires_ms,
  'deadline_ms', deadline_s > 0 and time + deadline_s * 1000 or 0, 'attempts', 1, 'added', 0, 'admitted', 0, 'ready', 0,
  'running', 0, 'done', 0, 'failed', 0, 'sealed', 0, 'expected', 0, 'idempotency', idempotency)
redis.call('PEXPIREAT', k_job(job), expires_ms + TOMBSTONE_MS)
redis.call('HSET', k_units(job), 'prepare.token', 0)
redis.call('PEXPIREAT', k_units(job), expires_ms + TOMBSTONE_MS)
redis.call('ZADD', k_index(owner), 0, job)
redis.call('ZADD', k_expiries(), expires_ms, job)
keep_shared(k_index(owner)) keep_shared(k_expiries())
if deadline_s > 0 then
  redis.call('ZADD', k_deadlines(), time + deadline_s * 1000, job)
  keep_shared(k_deadlines())
end
if idempotency ~= '' then
  redis.call('SET', k_idempotency(owner, idempotency), job .. ' ' .. fingerprint, 'PXAT', expires_ms)
end
enqueue(job, 'prepare')
changed(job, 'queued')
return {'created'}
