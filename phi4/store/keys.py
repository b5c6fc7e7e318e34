"""Every Redis key and how long it lives; the one place where they are spelled, for Python and for Lua."""

from __future__ import annotations

#: How long a tombstone answers 410 after a job has expired.
TOMBSTONE_MS = 7 * 86_400_000
#: The longest a job may be kept (`expires_in`).
MAX_EXPIRES_S = 30 * 86_400
#: Shared keys (queues, indexes) outlive the longest job and its tombstone, then go by themselves when unused.
SHARED_TTL_S = MAX_EXPIRES_S + TOMBSTONE_MS // 1000 + 86_400
#: A worker that has not been heard of for this long is not counted as alive.
WORKER_TTL_S = 5
#: An idempotency key whose first request is still uploading is locked this long at most.
IDEMPOTENCY_LOCK_S = 60
#: After a rotation receivers have this long to take the new secret.
OLD_SECRET_TTL_S = 86_400
#: Events kept of one run of a job. A run has at most six of status and end, and its progress is told in some 500 steps
#: however many parts there are, so that nothing is ever cut off here: the bound is a second fence.
MOST_EVENTS = 2_000
PROGRESS_STEPS = 500
#: What is told of a job's webhooks: those of its last runs, and the last tries of each.
MOST_HOOK_RUNS = 20
MOST_HOOK_TRIES = 50
#: Deliveries to one receiver among which one is looked for whose owner may have another under way.
MOST_HOOKS_LOOKED_AT = 100
#: Text in the making is kept for readers that come back soon; afterwards the result has it.
MOST_DELTAS = 10_000
DELTAS_TTL_S = 300
#: A reader says again and again that it is there; text is written to Redis only while one is.
READER_TTL_S = 30

#: name -> pattern; each `{}` is one argument.
PATTERNS = {
    "job": "phi4:job:{}",  # hash: the record
    "units": "phi4:units:{}",  # hash: prepare, finish and every part of one job, as `<unit>.<field>`
    "ready": "phi4:ready:{}:{}",  # zset per queue and owner: work waiting, by arrival
    "ring": "phi4:ring:{}",  # list per queue: owners that have work waiting, in turn
    "backlog": "phi4:backlog",  # hash: queue -> units waiting; `held` -> parts outside their job's window
    "sequence": "phi4:sequence",  # counter: order of arrival
    "leases": "phi4:leases",  # zset: running work, by the time its lease ends
    "deadlines": "phi4:deadlines",  # zset: jobs by deadline
    "expiries": "phi4:expiries",  # zset: jobs by expiry
    "leftovers": "phi4:leftovers",  # zset: "<job>|<run>" that ended and may have files to erase, by when it ended
    "index": "phi4:index:{}",  # zset per owner: job ids, newest last
    "idempotency": "phi4:idempotency:{}:{}",  # string per owner and key
    "remembered": "phi4:remembered:{}:{}",  # string per owner and question: the completed job that has the answer
    "file": "phi4:file:{}",  # hash: the record of an uploaded file
    "files": "phi4:files:{}",  # zset per owner: file ids, newest last
    "batch": "phi4:batch:{}",  # hash: the record of a batch
    "batches": "phi4:batches:{}",  # zset per owner: batch ids, newest last
    "open_batches": "phi4:open_batches",  # zset: batches that are not over
    "batch_lines": "phi4:batch_lines:{}",  # hash per batch: what each line has come to
    "workers": "phi4:workers",  # set: worker names
    "worker": "phi4:worker:{}",  # string: what a worker says of itself
    "hook_hosts": "phi4:hook_hosts",  # zset: receivers of webhooks by when they have to be looked at
    "hooks": "phi4:hooks:{}",  # zset per receiver: webhook deliveries by due time
    "hooks_sent": "phi4:hooks_sent:{}",  # zset per receiver: deliveries under way, by the time their lease ends
    "hooks_of": "phi4:hooks_of:{}",  # zset per owner: deliveries under way, by the time their lease ends
    "hook_hosts_passed": "phi4:hook_hosts_passed:{}",  # zset per owner: receivers that wait for a place of its
    "hook": "phi4:hook:{}",  # hash: one webhook delivery
    "hook_tries": "phi4:hook_tries:{}",  # list per delivery: what came of each try, oldest first
    "hook_outcomes": "phi4:hook_outcomes",  # hash: outcome -> tries of deliveries that had it
    "events": "phi4:events:{}",  # stream per job: status, progress, result or error
    "deltas": "phi4:deltas:{}",  # stream per job: pieces of text, numbered together with the events
    "reader": "phi4:reader:{}",  # string: somebody reads this job's events
    "changes": "phi4:changes",  # pub/sub channel: "<job id> <number> <event> <data>", each event as it happens
    "lock": "phi4:lock:{}",  # string: one holder at a time
    "ended": "phi4:ended",  # hash: "<type> <status>" -> jobs that ended so, for metrics
    "in_flight": "phi4:in_flight:{}",  # counter per share: pages or milliseconds of parts that wait or run
    "parked": "phi4:parked:{}",  # zset per share: jobs whose next part waits for others of the share to end, in turn
    "rate": "phi4:rate",  # prefix of what the rate limiter keeps
    "api_keys": "phi4:api_keys",  # hash: id -> key, without end
    "revoked_api_keys": "phi4:revoked_api_keys",  # hash: id -> when, without end
    "webhook_secret": "phi4:webhook_secret:{}",  # string per owner, without end
    "old_webhook_secret": "phi4:old_webhook_secret:{}",  # string per owner: the one before, for a day
}

_CONSTANTS = {
    "TOMBSTONE_MS": TOMBSTONE_MS,
    "SHARED_TTL_S": SHARED_TTL_S,
    "MOST_EVENTS": MOST_EVENTS,
    "PROGRESS_STEPS": PROGRESS_STEPS,
    "MOST_HOOK_RUNS": MOST_HOOK_RUNS,
    "MOST_HOOK_TRIES": MOST_HOOK_TRIES,
    "MOST_HOOKS_LOOKED_AT": MOST_HOOKS_LOOKED_AT,
    "MOST_DELTAS": MOST_DELTAS,
    "DELTAS_TTL_S": DELTAS_TTL_S,
    "READER_TTL_S": READER_TTL_S,
}


def key(name: str, *arguments: str) -> str:
    """Spell the key `name`."""
    return PATTERNS[name].format(*arguments)


def lua_functions() -> str:
    """Spell the same keys as Lua functions `k_<name>(…)`, and the times to live and bounds as constants."""
    lines = [f"local {name} = {value}" for name, value in _CONSTANTS.items()]
    for name, pattern in PATTERNS.items():
        fixed = pattern.split("{}")
        arguments = [f"a{i}" for i in range(len(fixed) - 1)]
        spelled = " .. ".join([f"'{fixed[0]}'"] + [f"{a} .. '{f}'" for a, f in zip(arguments, fixed[1:], strict=True)])
        lines.append(f"local function k_{name}({', '.join(arguments)}) return {spelled} end")
    return "\n".join(lines)
