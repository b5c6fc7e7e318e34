-- Shared by every script: the job's state machine. Time is Redis time, so that no machine's clock matters.
-- A unit is one piece of work of a job: 'prepare', a part ('0', '1', …) or 'finish'. A member is 'job|unit'.

local TERMINAL = {completed = true, failed = true, cancelled = true, expired = true}

local function now()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

local function job_get(job, ...) return unpack(redis.call('HMGET', k_job(job), ...)) end
local function job_num(job, field) return tonumber(redis.call('HGET', k_job(job), field) or 0) end
local function job_add(job, field, by) return redis.call('HINCRBY', k_job(job), field, by) end
local function unit_get(job, unit, field) return redis.call('HGET', k_units(job), unit .. '.' .. field) end
local function unit_set(job, unit, field, value) redis.call('HSET', k_units(job), unit .. '.' .. field, value) end
local function unit_add(job, unit, field, by) return redis.call('HINCRBY', k_units(job), unit .. '.' .. field, by) end
local function is_part(unit) return unit ~= 'prepare' and unit ~= 'finish' end

-- Events are numbered through a job's life, written in the step that they tell of, and told to who listens.
local function emit(job, stream, most, event, data)
  local n = job_add(job, 'events', 1)
  redis.call('XADD', stream, 'MAXLEN', '~', most, n, 'event', event, 'data', data)
  redis.call('PUBLISH', k_changes(), job .. ' ' .. n .. ' ' .. event .. ' ' .. data)
end

local function emit_lasting(job, event, data)
  emit(job, k_events(job), MOST_EVENTS, event, data)
  if redis.call('XLEN', k_events(job)) == 1 then
    redis.call('PEXPIREAT', k_events(job), redis.call('PEXPIRETIME', k_job(job)))
  end
end

-- A stream keeps 4 kB in hand for what will be added, more than a whole record needs; a copy of it has nothing to spare.
local function shrink_events(job)
  local copy = k_events(job .. ':copy')
  if redis.call('COPY', k_events(job), copy) == 1 then redis.call('RENAME', copy, k_events(job)) end
end

local function changed(job, status)
  emit_lasting(job, 'status', cjson.encode({part = cjson.null, status = status, attempts = job_num(job, 'attempts')}))
end

local function erase_events(job) redis.call('DEL', k_events(job), k_deltas(job), k_reader(job)) end

-- A part has ended. A job of very many parts tells of every n-th, so that its stream stays short.
local function progressed(job, unit)
  local done, failed, expected, added = job_get(job, 'done', 'failed', 'expected', 'added')
  local completed, total = done + failed, math.max(expected, added)
  if completed % math.max(1, math.floor(total / PROGRESS_STEPS)) ~= 0 and completed ~= total then return end
  local known = tonumber(expected)
  if known == 0 then known = cjson.null end
  emit_lasting(job, 'progress', cjson.encode({part = tonumber(unit), completed = completed, total = known}))
end

local function keep_shared(key) redis.call('EXPIRE', key, SHARED_TTL_S) end

-- The ready queues: owners take turns, and within an owner work goes in order of arrival. But the finishing of jobs goes
-- before all else: behind a stock of new ones, answers that are there would wait. Redis keeps whole numbers of this size exact.
local BEFORE_OTHERS = -2 ^ 52

local function push(queue, owner, member)
  local ready = k_ready(queue, owner)
  local place = redis.call('INCR', k_sequence())
  if string.match(member, '|finish$') then place = place + BEFORE_OTHERS end
  if redis.call('ZADD', ready, string.format('%.0f', place), member) == 1 then
    redis.call('HINCRBY', k_backlog(), queue, 1)
    if redis.call('ZCARD', ready) == 1 then redis.call('RPUSH', k_ring(queue), owner) end
  end
  keep_shared(ready) keep_shared(k_ring(queue)) keep_shared(k_backlog()) keep_shared(k_sequence())
end

local function pop(queue)
  local owner = redis.call('LPOP', k_ring(queue))
  while owner do
    local ready = k_ready(queue, owner)
    local member = redis.call('ZPOPMIN', ready)[1]
    if member then
      redis.call('HINCRBY', k_backlog(), queue, -1)
      if redis.call('ZCARD', ready) > 0 then
        redis.call('RPUSH', k_ring(queue), owner)
        keep_shared(k_ring(queue)) -- an only owner's turn was the last entry, and the list went with it
      end
      return member
    end
    owner = redis.call('LPOP', k_ring(queue))
  end
end

local function units_waiting()
  local waiting = 0
  for _, count in ipairs(redis.call('HVALS', k_backlog())) do waiting = waiting + tonumber(count) end
  return waiting
end

local function drop(queue, owner, member)
  local ready = k_ready(queue, owner)
  if redis.call('ZREM', ready, member) == 1 then
    redis.call('HINCRBY', k_backlog(), queue, -1)
    if redis.call('ZCARD', ready) == 0 then redis.call('LREM', k_ring(queue), 0, owner) end
  end
end

-- Where a unit waits: parts with an engine, the rest with the side worker.
local function queue_of(job, unit)
  if is_part(unit) then return redis.call('HGET', k_job(job), 'queue') end
  return 'prepare'
end

local function owns(job, unit, token)
  return unit_get(job, unit, 'token') == token and unit_get(job, unit, 'state') == 'running'
end

local function lease(job, unit, token, lease_ms)
  redis.call('ZADD', k_leases(), now() + lease_ms, job .. '|' .. unit .. '|' .. token)
  keep_shared(k_leases())
end

local function unlease(job, unit, token) redis.call('ZREM', k_leases(), job .. '|' .. unit .. '|' .. token) end

local function start(job, unit, worker, lease_ms)
  local token = tostring(unit_add(job, unit, 'token', 1))
  unit_set(job, unit, 'state', 'running')
  unit_set(job, unit, 'worker', worker)
  unit_set(job, unit, 'alone', 0)
  unit_set(job, unit, 'start_ms', now())
  lease(job, unit, token, lease_ms)
  return token
end

local function enqueue(job, unit)
  local queue = queue_of(job, unit)
  unit_set(job, unit, 'state', 'ready')
  unit_set(job, unit, 'ready_ms', now())
  push(queue, redis.call('HGET', k_job(job), 'owner'), job .. '|' .. unit)
  return queue
end

-- What a part takes of its job's share: milliseconds of a clip, else pages; in a conversation a clip counts as a page.
local function load_of(job, spec)
  local part = cjson.decode(spec)
  if redis.call('HGET', k_job(job), 'type') == 'asr' then
    return math.ceil(((part['end'] or 0) - (part.start or 0)) * 1000)
  end
  local pages = #(part.images or {})
  for _, input in ipairs(part.media or {}) do pages = pages + #input end
  return math.max(1, pages)
end

local function share_of(job)
  local share = redis.call('HGET', k_job(job), 'share')
  return share and share ~= '' and share or nil
end

-- Whether a part may be in flight beside the others of its share. A part that is more than the whole share goes alone; a job
-- that found no room is first when there is some, or big parts would wait for ever.
local function has_share(job, load)
  local share = share_of(job)
  if not share then return true end
  local first = redis.call('ZRANGE', k_parked(share), 0, 0)[1]
  if first and first ~= job then return false end
  local used = tonumber(redis.call('GET', k_in_flight(share)) or 0)
  return used == 0 or used + load <= job_num(job, 'share_most')
end

local function park(job)
  local share = share_of(job)
  redis.call('ZADD', k_parked(share), 'NX', redis.call('INCR', k_sequence()), job)
  keep_shared(k_parked(share)) keep_shared(k_sequence())
end

local function unpark(job)
  local share = share_of(job)
  return share and redis.call('ZREM', k_parked(share), job) == 1
end

local function take_share(job, load)
  local share = share_of(job)
  if not share then return end
  redis.call('INCRBY', k_in_flight(share), load)
  keep_shared(k_in_flight(share))
  job_add(job, 'in_flight', load)
end

-- How many parts this script has let into each queue.
local let_in = {}

-- Let held parts into the queue while the job's window and its share have room.
local function admit(job)
  local added, admitted, window = job_num(job, 'added'), job_num(job, 'admitted'), job_num(job, 'window')
  local busy = job_num(job, 'ready') + job_num(job, 'running')
  local went, room = 0, true
  while admitted < added and busy < window and room do
    local load = tonumber(unit_get(job, admitted, 'load') or 0)
    room = has_share(job, load)
    if room then
      take_share(job, load)
      enqueue(job, tostring(admitted))
      admitted, busy, went = admitted + 1, busy + 1, went + 1
    end
  end
  if room then unpark(job) else park(job) end
  if went > 0 then
    redis.call('HSET', k_job(job), 'admitted', admitted)
    job_add(job, 'ready', went)
    redis.call('HINCRBY', k_backlog(), 'held', -went)
    local queue = redis.call('HGET', k_job(job), 'queue')
    let_in[queue] = (let_in[queue] or 0) + went
  end
end

-- Let the jobs in that wait for their share, in turn. Tickets for queues that the script does not report come from the reaper.
local function admit_parked(share)
  local first = redis.call('ZRANGE', k_parked(share), 0, 0)[1]
  while first do
    admit(first)
    local next = redis.call('ZRANGE', k_parked(share), 0, 0)[1]
    if next == first then return end
    first = next
  end
end

local function give_share_back(job, load)
  local share = share_of(job)
  if not share then return end
  if redis.call('DECRBY', k_in_flight(share), load) <= 0 then redis.call('DEL', k_in_flight(share)) end
  job_add(job, 'in_flight', -load)
  admit_parked(share)
end

local function give_whole_share_back(job)
  unpark(job)
  give_share_back(job, job_num(job, 'in_flight'))
end

-- Deliveries wait in a schedule of their receiver's, and receivers in one of their own: one that has as many under way as
-- it may have is passed over in one step, however many wait for it. A receiver is a host and port.
local HOOK_EVENTS = {'job.started', 'job.completed', 'job.failed', 'job.cancelled', 'job.expired'}

local function host_of(url) return string.lower(string.match(url, '^%a+://([^/?#]*)') or '') end

local function look_at_next(host)
  local first = redis.call('ZRANGE', k_hooks(host), 0, 0, 'WITHSCORES')
  if not first[1] then redis.call('ZREM', k_hook_hosts(), host) return end
  redis.call('ZADD', k_hook_hosts(), first[2], host)
  keep_shared(k_hook_hosts())
end

local function hook_due(hook, host, at)
  redis.call('HSET', k_hook(hook), 'due_ms', at)
  redis.call('ZADD', k_hooks(host), at, hook)
  keep_shared(k_hooks(host))
  look_at_next(host)
end

local function hook_over(hook, host)
  redis.call('ZREM', k_hooks(host), hook)
  look_at_next(host)
end

-- An owner has no more under way than its part of the workers' places: one whose receivers hang leaves the rest to others. A
-- receiver that waits for owners who have none left is passed over, and remembered with each of them.
local function hook_owner(hook) return redis.call('HGET', k_job(string.match(hook, '^[^|]+')), 'owner') or '' end

local function look_at_passed(owner)
  repeat
    local host = redis.call('ZPOPMIN', k_hook_hosts_passed(owner))[1]
    if host then look_at_next(host) end
  until not host or redis.call('ZCOUNT', k_hooks(host), '-inf', now()) > 0
end

local function hook_back(hook, host)
  redis.call('ZREM', k_hooks_sent(host), hook)
  local owner = hook_owner(hook)
  if redis.call('ZREM', k_hooks_of(owner), hook) == 1 then look_at_passed(owner) end
end

-- What an event says is kept with it: the job's record may tell of a later run when it is delivered.
local function schedule_hook(job, event)
  local url, events, err = job_get(job, 'webhook_url', 'webhook_events', 'error')
  if not url or url == '' or not string.find(events, ' ' .. event .. ' ', 1, true) then return end
  local hook = job .. '|' .. event .. '|' .. redis.call('HGET', k_job(job), 'attempts')
  redis.call('HSET', k_hook(hook), 'tries', 0, 'event_ms', now(), 'url', url, 'error', err or '')
  redis.call('PEXPIREAT', k_hook(hook), redis.call('PEXPIRETIME', k_job(job)))
  hook_due(hook, host_of(url), now())
end

-- Jobs that this script has ended: whose step it was tells of it, and nobody else. An expiry is told when the job is erased.
local ended = {}

-- The one place where a job ends; ending twice changes nothing.
local function finish_job(job, status, err)
  if TERMINAL[redis.call('HGET', k_job(job), 'status')] then return end
  redis.call('HSET', k_job(job), 'status', status, 'ended_ms', now(), 'error', err or '')
  ended[job] = status ~= 'expired' or nil
  redis.call('ZADD', k_leftovers(), now(), job .. '|' .. redis.call('HGET', k_job(job), 'attempts'))
  keep_shared(k_leftovers())
  redis.call('ZREM', k_deadlines(), job)
  redis.call('HINCRBY', k_ended(), redis.call('HGET', k_job(job), 'type') .. ' ' .. status, 1)
  keep_shared(k_ended())
  changed(job, status)
  if status == 'completed' then
    emit_lasting(job, 'result', '{"part":null}')
  else
    local told = err and err ~= '' and err or 'null'
    emit_lasting(job, 'error', '{"part":null,"error":' .. told .. '}')
  end
  shrink_events(job)
  schedule_hook(job, 'job.' .. status)
end

-- End a job after its finishing: as it was told to stop, else as given.
local function conclude(job, status, err)
  local stop, stop_error = job_get(job, 'stop', 'stop_error')
  if stop and stop ~= '' then status, err = stop, stop_error end
  finish_job(job, status, err)
end

-- Nothing of the job waits or runs any more, and nothing will be added.
local function settled(job)
  if job_num(job, 'running') > 0 or job_num(job, 'ready') > 0 then return false end
  if unit_get(job, 'prepare', 'state') == 'running' then return false end
  local stop, sealed, added, admitted = job_get(job, 'stop', 'sealed', 'added', 'admitted')
  if stop and stop ~= '' then return true end
  return sealed == '1' and added == admitted
end

local function stopped_without_result(job)
  local stop, err, done = job_get(job, 'stop', 'stop_error', 'done')
  if stop and stop ~= '' and (tonumber(done) == 0 or stop == 'expired') then
    finish_job(job, stop, err)
    return true
  end
  return false
end

-- Whether the job's finishing has to be arranged now; ends the job itself when there is nothing to put together.
local function must_finish(job)
  if unit_get(job, 'finish', 'state') or not settled(job) then return false end
  return not stopped_without_result(job)
end

-- After any unit ended: hand the job's finishing to this worker. Returns its token, or ''.
local function settle(job, worker, lease_ms)
  return must_finish(job) and start(job, 'finish', worker, lease_ms) or ''
end

-- As settle, when no worker is at hand: the finishing waits in the queue. Returns the queue, or ''.
local function settle_later(job)
  return must_finish(job) and enqueue(job, 'finish') or ''
end

local function count_out(job, unit, outcome)
  if not is_part(unit) then return end
  job_add(job, 'running', -1)
  if outcome ~= '' then job_add(job, outcome, 1) end
  if outcome ~= 'ready' then give_share_back(job, tonumber(unit_get(job, unit, 'load') or 0)) end
end

local function drop_waiting(job)
  local owner, queue, added, admitted = job_get(job, 'owner', 'queue', 'added', 'admitted')
  drop('prepare', owner, job .. '|prepare')
  if unit_get(job, 'prepare', 'state') == 'ready' then unit_set(job, 'prepare', 'state', 'dropped') end
  local load = 0
  for n = 0, tonumber(admitted) - 1 do
    if unit_get(job, n, 'state') == 'ready' then
      drop(queue, owner, job .. '|' .. n)
      unit_set(job, n, 'state', 'dropped')
      load = load + tonumber(unit_get(job, n, 'load') or 0)
    end
  end
  redis.call('HINCRBY', k_backlog(), 'held', tonumber(admitted) - tonumber(added))
  redis.call('HSET', k_job(job), 'ready', 0, 'admitted', added)
  unpark(job)
  give_share_back(job, load)
end

-- Write a piece of a running part's text: bytes from `offset` on of its attempt's `take`-th telling. Sent twice, or with more
-- at its end, it is written once. Returns 'ok', 'unread' or 'lost'.
local function say(job, unit, token, take, offset, text)
  local stop = redis.call('HGET', k_job(job), 'stop')
  if (stop and stop ~= '') or not owns(job, unit, token) then return 'lost' end
  if redis.call('EXISTS', k_reader(job)) == 0 then return 'unread' end
  local telling = token .. '.' .. take
  local told, upto = string.match(unit_get(job, unit, 'said') or '', '^(%S+) (%d+)$')
  if told == telling and tonumber(upto) > offset then
    text = string.sub(text, upto - offset + 1)
    offset = tonumber(upto)
  end
  if text == '' then return 'ok' end
  unit_set(job, unit, 'said', telling .. ' ' .. offset + #text)
  local data = {part = tonumber(unit), attempt = tonumber(token), offset = offset, text = text}
  emit(job, k_deltas(job), MOST_DELTAS, 'delta', cjson.encode(data))
  redis.call('EXPIRE', k_deltas(job), DELTAS_TTL_S)
  return 'ok'
end

-- Ask a job to end as `final` ('cancelled', 'failed', 'expired'): what waits is dropped, what runs is told by its next
-- heartbeat. Returns the queue its finishing waits in, or ''.
local function stop_job(job, final, err)
  local status, stop = job_get(job, 'status', 'stop')
  if not status or TERMINAL[status] or (stop and stop ~= '') then return '' end
  redis.call('HSET', k_job(job), 'stop', final, 'stop_error', err)
  drop_waiting(job)
  if final == 'cancelled' then
    redis.call('HSET', k_job(job), 'status', 'cancelling')
    changed(job, 'cancelling')
  end
  return settle_later(job)
end

-- Give a running unit back to its queue. Returns the queue.
local function put_back(job, unit, token)
  unlease(job, unit, token)
  count_out(job, unit, 'ready')
  return enqueue(job, unit)
end

-- A report on a unit, whose last argument is a word of its own, is answered with: parts let into the job's queue, the token of
-- its finishing and the queue to wake (or ''), and the job's record if it ended by this. The answer is kept: who did not get
-- it sends the report again, under the same word, and gets it then.
local function answer(job, report)
  local over = report[5] == 1 and redis.call('HGETALL', k_job(job)) or {}
  return {'ok', report[2], report[3], report[4], over}
end

local function reported(job, unit, finish, wake)
  local let = let_in[redis.call('HGET', k_job(job), 'queue')] or 0
  local report = {ARGV[#ARGV], let, finish, wake, ended[job] and 1 or 0}
  unit_set(job, unit, 'report', cjson.encode(report))
  return answer(job, report)
end

local function reported_before(job, unit)
  local kept = unit_get(job, unit, 'report')
  if not kept then return nil end
  local report = cjson.decode(kept)
  return report[1] == ARGV[#ARGV] and answer(job, report) or nil
end
