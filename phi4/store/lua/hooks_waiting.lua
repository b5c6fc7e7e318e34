-- ARGV: most receivers to look at. Returns {deliveries that are due, that wait for their next try, that are under way},
-- of the receivers that are to be looked at soonest.
local time = now()
local due, later, sent = 0, 0, 0
for _, host in ipairs(redis.call('ZRANGE', k_hook_hosts(), 0, tonumber(ARGV[1]) - 1)) do
  local under_way = redis.call('ZCOUNT', k_hooks_sent(host), '(' .. time, '+inf')
  local ready = redis.call('ZCOUNT', k_hooks(host), '-inf', time)
  due = due + ready
  sent = sent + under_way
  -- One under way is scheduled for the end of its lease.
  later = later + math.max(0, redis.call('ZCARD', k_hooks(host)) - ready - under_way)
end
return {due, later, sent}
