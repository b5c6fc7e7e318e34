-- ARGV: lock, holder, ms. Takes a free lock or keeps one's own for so long. Returns 1 when it is this holder's.
local holder = redis.call('GET', k_lock(ARGV[1]))
if holder and holder ~= ARGV[2] then return 0 end
redis.call('SET', k_lock(ARGV[1]), ARGV[2], 'PX', ARGV[3])
return 1
