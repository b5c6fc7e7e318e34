-- ARGV: hook. Makes a delivery due now, with all its tries before it. Returns 'ok', 'sent' (under way now) or 'unknown'.
local hook = ARGV[1]
local url = redis.call('HGET', k_hook(hook), 'url')
if not url then return 'unknown' end
local lease_ends = redis.call('ZSCORE', k_hooks_sent(host_of(url)), hook)
if lease_ends and tonumber(lease_ends) > now() then return 'sent' end
redis.call('HSET', k_hook(hook), 'tries', 0, 'outcome', '')
hook_due(hook, host_of(url), now())
return 'ok'
