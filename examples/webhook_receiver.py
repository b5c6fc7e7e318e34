"""Takes webhooks, and believes only those that the service has signed: PHI4_WEBHOOK_SECRET=… webhook_receiver.py [PORT]

On this machine the service must be told that it may call here: `PHI4_ALLOW_HOSTS=127.0.0.1 make up`.
"""

from __future__ import annotations

import os
import sys
from collections import deque

from flask import Flask, request
from standardwebhooks import Webhook, WebhookVerificationError

app = Flask(__name__)
webhook = Webhook(os.environ["PHI4_WEBHOOK_SECRET"])  # `make up` keeps its own in .phi4/webhook-secret
seen: deque[str] = deque(maxlen=10_000)


@app.post("/hook")
def hook() -> tuple[str, int]:
    """Answer 204 quickly, and do long work elsewhere: what is not answered in time is sent again."""
    try:
        event = webhook.verify(request.get_data(), dict(request.headers))
    except WebhookVerificationError:
        return "not signed by the service", 401
    if request.headers["webhook-id"] not in seen:  # a repeat comes under the same id
        seen.append(request.headers["webhook-id"])
        print(event["event"], event["job"]["id"], event["job"].get("result", ""), flush=True)
    return "", 204


if __name__ == "__main__":
    app.run(port=int(sys.argv[1]) if len(sys.argv) > 1 else 9000)
