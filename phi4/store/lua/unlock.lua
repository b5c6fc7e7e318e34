-- ARGV: owner, idempotency key, nonce. Lets go of a key that this request reserved; a key that belongs to a job by now stays.
local name = k_idempotency(ARGV[1], ARGV[2])
if redis.call('GET', name) ~= 'pending ' .. ARGV[3] then return 0 end
return redis.call('DEL', name)
