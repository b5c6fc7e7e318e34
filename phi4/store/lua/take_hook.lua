-- ARGV: lease in ms, most deliveries under way to one receiver, most of one owner.
-- Takes the webhook delivery that is most overdue; untouched, it is due again when the lease ends.
-- Returns {hook, tries, event_ms, url, error (JSON), '' or nil from an older version} or nil.
local lease_ms, most_of_host, most_of_owner = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local time = now()

local function under_way(sent) return redis.call('ZCOUNT', sent, '(' .. time, '+inf') end

-- A report makes the next one due; this is for reports that never come.
local function first_lease_ends(sent)
  return tonumber(redis.call('ZRANGEBYSCORE', sent, '(' .. time, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)[2])
end

local function note(sent, hook)
  redis.call('ZADD', sent, time + lease_ms, hook)
  redis.call('ZREMRANGEBYSCORE', sent, '-inf', time)
  keep_shared(sent)
end

-- The first delivery that is due to a receiver and whose owner has a place, or nil; and the owners before it that have none.
local function next_hook(host)
  local full, is_full = {}, {}
  for _, hook in ipairs(redis.call('ZRANGEBYSCORE', k_hooks(host), '-inf', time, 'LIMIT', 0, MOST_HOOKS_LOOKED_AT)) do
    local owner = hook_owner(hook)
    if not is_full[owner] then
      if under_way(k_hooks_of(owner)) < most_of_owner then return hook, full end
      is_full[owner] = true
      table.insert(full, owner)
    end
  end
  return nil, full
end

local function pass_over(host, full)
  local due, look_at = redis.call('ZRANGE', k_hooks(host), 0, 0, 'WITHSCORES')[2], math.huge
  for _, owner in ipairs(full) do
    redis.call('ZADD', k_hook_hosts_passed(owner), due, host)
    keep_shared(k_hook_hosts_passed(owner))
    look_at = math.min(look_at, first_lease_ends(k_hooks_of(owner)))
  end
  redis.call('ZADD', k_hook_hosts(), look_at, host)
end

local host = redis.call('ZRANGEBYSCORE', k_hook_hosts(), '-inf', time, 'LIMIT', 0, 1)[1]
while host do
  local sent = k_hooks_sent(host)
  local hook, full = next_hook(host)
  if not hook and #full == 0 then
    look_at_next(host)
  elseif under_way(sent) >= most_of_host then
    redis.call('ZADD', k_hook_hosts(), first_lease_ends(sent), host)
  elseif not hook then
    pass_over(host, full)
  else
    local tries, event_ms, url, err = unpack(redis.call('HMGET', k_hook(hook), 'tries', 'event_ms', 'url', 'error'))
    if url then
      note(sent, hook)
      note(k_hooks_of(hook_owner(hook)), hook)
      redis.call('ZADD', k_hooks(host), time + lease_ms, hook)
      look_at_next(host)
      return {hook, tonumber(tries), tonumber(event_ms), url, err}
    end
    hook_over(hook, host)
  end
  host = redis.call('ZRANGEBYSCORE', k_hook_hosts(), '-inf', time, 'LIMIT', 0, 1)[1]
end
return nil
