"""Hears the tokens that transformers generates, one by one: text, deltas, loops, stop strings, and the call's end."""

from __future__ import annotations

from typing import Any

import torch
from tokenizers.decoders import DecodeStream
from transformers import StoppingCriteria

from phi4.errors import Cancelled
from worker.engines.attempt import Said
from worker.engines.base import Call
from worker.engines.loops import LoopWatch
from worker.engines.phi4 import STOP_TOKEN_IDS, Prompt


class Listener(StoppingCriteria):  # type: ignore[misc]  # transformers is untyped here
    """Follows one attempt; a stopping criterion is where `generate` hands over each token, and can be told to end."""

    def __init__(self, tokenizer: Any, prompt: Prompt, call: Call) -> None:
        self._tokenizer = tokenizer.backend_tokenizer
        self._stream = DecodeStream(skip_special_tokens=True)
        self._call = call
        self._stop = prompt.stop
        #: So much may be the beginning of a stop string.
        self._kept_back = max(map(len, prompt.stop), default=1) - 1
        self._watch = LoopWatch() if prompt.retries else None
        self._held = ""
        self._pieces: list[str] = []
        self._tokens = 0
        self._reason = "length"
        self._loops = False

    def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
        """Hear the last token of `input_ids` (1 × tokens); True ends the attempt. Raises `Cancelled`."""
        if self._call.cancelled.is_set():
            raise Cancelled
        ended = self._hear(int(input_ids[0, -1]))
        return torch.tensor([ended], device=input_ids.device)

    def said(self) -> Said:
        """What was said, once `generate` has returned."""
        self._tell(len(self._held))
        return Said("".join(self._pieces), self._tokens, self._reason, loops=self._loops)

    def _hear(self, token: int) -> bool:
        self._tokens += 1
        if token in STOP_TOKEN_IDS:
            self._reason = "stop"
            return True
        piece = self._decoded(token)
        self._held += piece
        if found := [at for word in self._stop if (at := self._held.find(word)) >= 0]:
            self._held = self._held[: min(found)]
            self._reason = "stop"
            return True
        self._tell(len(self._held) - self._kept_back)
        self._loops = self._watch is not None and self._watch.hears_a_loop(piece)
        return self._loops

    def _decoded(self, token: int) -> str:
        try:
            return self._stream.step(self._tokenizer, token) or ""
        except Exception:  # the library knows no narrower one for bytes that are no UTF-8, after which it is of no use
            self._stream = DecodeStream(skip_special_tokens=True)
            return self._stream.step(self._tokenizer, token) or ""

    def _tell(self, length: int) -> None:
        """Let go of the first `length` characters that were held."""
        if length > 0:
            piece, self._held = self._held[:length], self._held[length:]
            self._pieces.append(piece)
            self._call.on_delta(piece)
