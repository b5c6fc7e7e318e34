"""The Celery worker: preparation, engines, and webhook delivery."""
