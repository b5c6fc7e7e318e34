-- ARGV: hook, its URL, 'delivered' | 'retry' | 'gone' | 'given_up', answer in words, ms before the next try, ms the try took.
local hook, host, outcome, took_ms = ARGV[1], host_of(ARGV[2]), ARGV[3], tonumber(ARGV[6])
hook_back(hook, host)
look_at_next(host)
-- Not scheduled any more: deleted, or a try that took longer than its lease reports after the next one has arrived.
if not redis.call('ZSCORE', k_hooks(host), hook) or redis.call('EXISTS', k_hook(hook)) == 0 then return 0 end
local number = redis.call('HINCRBY', k_hook(hook), 'number', 1)
redis.call('HINCRBY', k_hook(hook), 'tries', 1)
redis.call('HSET', k_hook(hook), 'outcome', outcome, 'answer', ARGV[4], 'tried_ms', now())
local tried = {number = number, at_ms = now() - took_ms, took_ms = took_ms, answer = ARGV[4]}
redis.call('RPUSH', k_hook_tries(hook), cjson.encode(tried))
redis.call('LTRIM', k_hook_tries(hook), -MOST_HOOK_TRIES, -1)
redis.call('PEXPIREAT', k_hook_tries(hook), redis.call('PEXPIRETIME', k_hook(hook)))
redis.call('HINCRBY', k_hook_outcomes(), outcome, 1)
keep_shared(k_hook_outcomes())
if outcome == 'retry' then
  hook_due(hook, host, now() + tonumber(ARGV[5]))
else
  hook_over(hook, host)
end
return 1
