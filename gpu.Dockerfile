# Images of the service. Unverified: written without a Docker engine at hand.
# docker build -f gpu.Dockerfile --target api -t phi4-api .
# docker build -f gpu.Dockerfile --target worker -t phi4-worker .
#
# This version's worker carries the `cpu` engine; the CUDA layers come with the vLLM engine.

FROM python:3.11-slim-bookworm AS base
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PATH=/opt/venv/bin:$PATH PYTHONPATH=/app PHI4_DATA_DIR=/data
RUN useradd --uid 10001 --create-home phi4 && mkdir /data && chown phi4 /data && python -m venv /opt/venv
WORKDIR /app
VOLUME /data

# The locks change seldom and the code often, so the code comes last.
FROM base AS api
COPY requirements/api.txt /tmp/
RUN pip install --no-cache-dir --require-hashes -r /tmp/api.txt
COPY phi4 phi4
COPY api api
USER phi4
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/livez', timeout=2)"]
ENTRYPOINT ["python", "-m", "api"]

FROM base AS worker
COPY requirements/worker-cpu.txt /tmp/
RUN pip install --no-cache-dir --require-hashes -r /tmp/worker-cpu.txt
COPY phi4 phi4
COPY worker worker
USER phi4
# Exec form: SIGTERM must reach this process alone, never its children.
ENTRYPOINT ["python", "-m", "worker"]
CMD ["infer"]
