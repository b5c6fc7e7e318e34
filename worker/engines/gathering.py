"""When a waiting request enters vLLM's batch: a short prompt waits for others while the batch is busy without it.

Clips that are read together cost half as much in the encoder as one by one, and hold up the others' next word once. In
a full engine a place becomes free at nearly every step, so that each step would read one.
"""

from __future__ import annotations

import time
from itertools import islice
from typing import Any

from vllm.v1.core.sched.async_scheduler import AsyncScheduler

from phi4.job import PRIORITIES
from worker.engines.serve_args import ENOUGH_PROMPTS, ENOUGH_TOKENS

#: Nobody waits longer for company.
_PATIENCE_S = 0.08


class Gathering(AsyncScheduler):  # type: ignore[misc]
    """vLLM's scheduler, but for the moment at which waiting requests enter."""

    _since: float | None = None  #: when the first of those that wait for company could have entered

    def schedule(self, throttle_prefills: bool = False) -> Any:
        """Choose what the next step computes."""
        if throttle_prefills or not self._waits_for_company(time.monotonic()):
            return super().schedule(throttle_prefills)
        # vLLM reads prompts all the same when more of them wait than there is room for, which is the rule here.
        self.prefill_capacity_bound = False
        return super().schedule(True)

    def _waits_for_company(self, now: float) -> bool:
        entering = min(len(self.waiting), self.max_num_running_reqs - len(self.running))
        if entering <= 0 or not self._is_busy() or self._are_enough(entering):
            self._since = None
            return False
        self._since = self._since or now
        if now - self._since < _PATIENCE_S:
            return True
        self._since = None
        return False

    def _is_busy(self) -> bool:
        """Whether the step is worth it without newcomers; prompts that are read in pieces go on."""
        is_full = 2 * len(self.running) >= self.max_num_running_reqs
        return is_full and not any(request.is_prefill_chunk for request in self.running)

    def _are_enough(self, entering: int) -> bool:
        first = list(islice(self.waiting, entering))
        urgent = any(request.priority < PRIORITIES.index("normal") for request in first)
        return urgent or entering >= ENOUGH_PROMPTS or sum(r.num_prompt_tokens for r in first) >= ENOUGH_TOKENS
