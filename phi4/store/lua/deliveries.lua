-- ARGV: job. Tells of the webhooks of its last runs, in the order of their events.
-- Returns {{hook, tries, event_ms, url, error}, {outcome, due_ms}, {try (JSON)…}}…
local job, found = ARGV[1], {}
local attempts = job_num(job, 'attempts')
for attempt = math.max(1, attempts - MOST_HOOK_RUNS + 1), attempts do
  for _, event in ipairs(HOOK_EVENTS) do
    local hook = job .. '|' .. event .. '|' .. attempt
    local tries, event_ms, url, err, outcome, due_ms =
      unpack(redis.call('HMGET', k_hook(hook), 'tries', 'event_ms', 'url', 'error', 'outcome', 'due_ms'))
    if url then
      local told = redis.call('LRANGE', k_hook_tries(hook), 0, -1)
      local event = {hook, tonumber(tries), tonumber(event_ms), url, err}
      table.insert(found, {event, {outcome or '', tonumber(due_ms)}, told})
    end
  end
end
return found
