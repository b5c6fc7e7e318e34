-- ARGV: lease in ms. Takes the webhook delivery that is most overdue; untouched, it is due again when the lease ends.
-- Returns {hook, tries, event_ms, url} or nil.
local hook = redis.call('ZRANGEBYSCORE', k_hooks(), '-inf', now(), 'LIMIT', 0, 1)[1]
while hook do
  local tries, event_ms, url = unpack(redis.call('HMGET', k_hook(hook), 'tries', 'event_ms', 'url'))
  if tries then
    redis.call('ZADD', k_hooks(), now() + tonumber(ARGV[1]), hook)
    return {hook, tonumber(tries), tonumber(event_ms), url}
  end
  redis.call('ZREM', k_hooks(), hook)
  hook = redis.call('ZRANGEBYSCORE', k_hooks(), '-inf', now(), 'LIMIT', 0, 1)[1]
end
return nil
