"""vLLM's own figures that the dashboard shows; a worker serves them beside its own."""

from __future__ import annotations

VLLM_FIGURES = {
    "vllm:num_requests_running",
    "vllm:num_requests_waiting",
    "vllm:kv_cache_usage_perc",
    "vllm:time_to_first_token_seconds_bucket",
    "vllm:prompt_tokens_total",
    "vllm:generation_tokens_total",
}
