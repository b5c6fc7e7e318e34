# Images of the service: `api` (slim, no torch), `worker-cpu` (preparation, webhooks, the cpu engine), `worker` (vLLM on CUDA).
#   docker build -f gpu.Dockerfile --target api -t phi4-api .
# `api` and `worker-cpu` were built and run on the stand-in base (deploy/local-base-images.sh), read-only and as uid 10001.
# Unverified: `worker`, of which only the lock was downloaded and checked.
#
# Each image installs its lock first and copies the code last: a change of code rebuilds in seconds.

ARG PYTHON_CPU=3.11-slim-bookworm
ARG PYTHON_GPU=3.12-slim-bookworm

FROM python:${PYTHON_CPU} AS base
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PATH=/opt/venv/bin:$PATH PYTHONPATH=/app PHI4_DATA_DIR=/data
RUN useradd --uid 10001 --create-home phi4 && mkdir /data && chown phi4 /data && python -m venv /opt/venv
WORKDIR /app
VOLUME /data

FROM base AS api
COPY requirements/api.txt /tmp/
RUN pip install --no-cache-dir --require-hashes -r /tmp/api.txt
COPY phi4 phi4
COPY api api
USER 10001
EXPOSE 8000 9108
HEALTHCHECK --interval=10s --timeout=10s --start-period=30s CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen('http://127.0.0.1:' + os.environ.get('PORT', '8000') + '/livez', timeout=2)"]
ENTRYPOINT ["python", "-m", "api"]

FROM base AS worker-cpu
COPY requirements/worker-cpu.txt /tmp/
RUN pip install --no-cache-dir --require-hashes -r /tmp/worker-cpu.txt
COPY phi4 phi4
COPY worker worker
# `python -m cli keys`, where Redis is not reached from outside.
COPY cli cli
USER 10001
EXPOSE 9108
HEALTHCHECK --interval=10s --timeout=15s --start-period=60s CMD ["python", "-m", "worker", "healthy"]
# Exec form: SIGTERM must reach this process alone, never its children.
ENTRYPOINT ["python", "-m", "worker"]
CMD ["side"]

FROM python:${PYTHON_GPU} AS worker
# Triton compiles small C files when the engine starts.
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
# FlashInfer's sampler would be compiled with nvcc, which is not here. The caches are a volume: the model, and what was compiled.
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PATH=/opt/venv/bin:$PATH PYTHONPATH=/app PHI4_DATA_DIR=/data \
    PHI4_ENGINE=vllm HF_HOME=/models XDG_CACHE_HOME=/models/.cache VLLM_CACHE_ROOT=/models/.cache/vllm \
    TRITON_CACHE_DIR=/models/.cache/triton TORCHINDUCTOR_CACHE_DIR=/models/.cache/inductor \
    VLLM_USE_FLASHINFER_SAMPLER=0
RUN useradd --uid 10001 --create-home phi4 && mkdir /data /models && chown phi4 /data /models && python -m venv /opt/venv
WORKDIR /app
VOLUME /data /models
COPY requirements/worker-gpu.txt /tmp/
# Without --no-deps, pip before 24 takes a newer pydantic than the lock's for an extra of it, and gives up.
RUN pip install --no-cache-dir --no-deps --require-hashes -r /tmp/worker-gpu.txt
# vLLM's processes find the service's plugin through this entry point.
COPY deploy/vllm-plugin /app/
COPY phi4 phi4
COPY worker worker
# `python -m cli predict` and `serve`, without a service.
COPY cli cli
USER 10001
EXPOSE 9108
# The first start downloads 12 GB and compiles for minutes.
HEALTHCHECK --interval=10s --timeout=15s --start-period=45m CMD ["python", "-m", "worker", "healthy"]
ENTRYPOINT ["python", "-m", "worker"]
CMD ["infer"]
