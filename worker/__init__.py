"""The Celery worker: preparation, engines, and webhook delivery."""

import os

# ONNX Runtime reports to its makers what it runs, unless it finds this when it is loaded.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
