-- ARGV: hook, 'delivered' | 'retry' | 'given_up', answer in words, wait before the next try in ms.
local hook, outcome = ARGV[1], ARGV[2]
-- Not scheduled any more: deleted, or a try that took longer than its lease reports after the next one has arrived.
if not redis.call('ZSCORE', k_hooks(), hook) or redis.call('EXISTS', k_hook(hook)) == 0 then return 0 end
redis.call('HINCRBY', k_hook(hook), 'tries', 1)
redis.call('HSET', k_hook(hook), 'outcome', outcome, 'answer', ARGV[3], 'tried_ms', now())
redis.call('HINCRBY', k_hook_outcomes(), outcome, 1)
keep_shared(k_hook_outcomes())
if outcome == 'retry' then
  redis.call('ZADD', k_hooks(), now() + tonumber(ARGV[4]), hook)
else
  redis.call('ZREM', k_hooks(), hook)
end
return 1
