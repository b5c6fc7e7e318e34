"""What the answer, the chunks and the usage of one chat completion have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from phi4.job import Job


@dataclass(frozen=True, slots=True)
class Completion:
    """One completion, in OpenAI's shapes."""

    job: Job
    model: str
    include_usage: bool = False

    def chunk(self, choices: list[dict[str, Any]], usage: dict[str, Any] | None = None) -> dict[str, Any]:
        """One chunk of a stream."""
        return self._head("chat.completion.chunk", choices) | ({"usage": usage} if self.include_usage else {})

    def whole(self, job: Job, result: dict[str, Any]) -> dict[str, Any]:
        """The completion of a job that has ended."""
        message = {"role": "assistant", "content": result["answer"], "refusal": None, "annotations": []}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": result["finish_reason"]}
        return self._head("chat.completion", [choice]) | {"usage": usage_of(job)}

    def _head(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self.job.id.replace("job_", "chatcmpl-", 1),
            "object": kind,
            "created": self.job.created_ms // 1000,
            "model": self.model,
            "choices": choices,
        }


def usage_of(job: Job) -> dict[str, Any]:
    """Count a job's tokens as OpenAI does."""
    prompt, answer = (int(job.usage.get(f"{kind}_tokens", 0)) for kind in ("prompt", "completion"))
    return {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer}
