"""Asks about a picture with OpenAI's own client, word by word: openai_client.py PICTURE QUESTION"""

from __future__ import annotations

import base64
import os
import sys
from pathlib import Path

from openai import OpenAI

picture, question = sys.argv[1:]
url = "data:image/jpeg;base64," + base64.b64encode(Path(picture).read_bytes()).decode()
client = OpenAI(
    base_url=os.environ.get("PHI4_URL", "http://127.0.0.1:8000") + "/v1",
    api_key=os.environ.get("PHI4_API_KEY", "none needed on loopback"),
)
stream = client.chat.completions.create(
    model="phi-4-multimodal",
    messages=[
        {
            "role": "user",
            "content": [{"type": "text", "text": question}, {"type": "image_url", "image_url": {"url": url}}],
        }
    ],
    stream=True,
)
for chunk in stream:
    print(chunk.choices[0].delta.content or "", end="", flush=True)
print()
