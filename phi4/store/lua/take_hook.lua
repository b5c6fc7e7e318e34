-- ARGV: lease in ms, most deliveries under way to one receiver.
-- Takes the webhook delivery that is most overdue; untouched, it is due again when the lease ends.
-- Returns {hook, tries, event_ms, url, error (JSON), '' or nil from an older version} or nil.
local lease_ms, most = tonumber(ARGV[1]), tonumber(ARGV[2])
local time = now()
local host = redis.call('ZRANGEBYSCORE', k_hook_hosts(), '-inf', time, 'LIMIT', 0, 1)[1]
while host do
  local sent = k_hooks_sent(host)
  local hook = redis.call('ZRANGEBYSCORE', k_hooks(host), '-inf', time, 'LIMIT', 0, 1)[1]
  if not hook then
    look_at_next(host)
  elseif redis.call('ZCOUNT', sent, '(' .. time, '+inf') >= most then
    -- A report on any of them makes the next one due; this is for reports that never come.
    local first = redis.call('ZRANGEBYSCORE', sent, '(' .. time, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
    redis.call('ZADD', k_hook_hosts(), first[2], host)
  else
    local tries, event_ms, url, err = unpack(redis.call('HMGET', k_hook(hook), 'tries', 'event_ms', 'url', 'error'))
    if url then
      redis.call('ZADD', sent, time + lease_ms, hook)
      redis.call('ZREMRANGEBYSCORE', sent, '-inf', time)
      keep_shared(sent)
      redis.call('ZADD', k_hooks(host), time + lease_ms, hook)
      look_at_next(host)
      return {hook, tonumber(tries), tonumber(event_ms), url, err}
    end
    hook_over(hook, host)
  end
  host = redis.call('ZRANGEBYSCORE', k_hook_hosts(), '-inf', time, 'LIMIT', 0, 1)[1]
end
return nil
