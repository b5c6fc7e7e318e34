"""Schemas of the OpenAPI document that stand alone: what is told of webhooks, and the fields of a form."""

from __future__ import annotations

from typing import Any, get_args

from phi4.job import PRIORITIES, WebhookEvent
from phi4.params import PARAMS
from phi4.store.hooks import DeliveryState

Schema = dict[str, Any]

DELIVERY: Schema = {
    "type": "object",
    "required": ["id", "object", "event", "state", "created_at", "next_attempt_at", "attempts"],
    "properties": {
        "id": {"type": "string", "description": "The event's id: the `webhook-id` of every attempt"},
        "object": {"const": "delivery"},
        "event": {"enum": list(get_args(WebhookEvent))},
        "state": {"enum": list(get_args(DeliveryState)), "description": "`gone`: the receiver answered 410"},
        "created_at": {"type": "integer", "description": "When the event happened"},
        "next_attempt_at": {"type": ["integer", "null"], "description": "While pending"},
        "attempts": {
            "type": "array",
            "description": "The last ones, oldest first",
            "items": {
                "type": "object",
                "properties": {
                    "number": {"type": "integer"},
                    "at": {"type": "integer", "description": "When it began"},
                    "duration_ms": {"type": "integer"},
                    "status": {"type": ["integer", "null"], "description": "What the receiver answered"},
                    "error": {"type": ["string", "null"], "description": "Why there was no answer"},
                },
            },
        },
    },
}
DELIVERY_LIST: Schema = {
    "type": "object",
    "required": ["object", "data", "has_more"],
    "properties": {
        "object": {"const": "list"},
        "data": {"type": "array", "items": {"$ref": "#/components/schemas/Delivery"}},
        "has_more": {"const": False},
    },
}
FORM: Schema = {
    "type": "object",
    "required": ["type"],
    "description": "The fields of JobRequest; `params`, `metadata` and `input` as JSON; any number of files.",
    "properties": {
        "type": {"enum": list(PARAMS)},
        "file": {"type": "array", "items": {"type": "string", "format": "binary"}},
        "params": {"type": "string", "contentMediaType": "application/json"},
        "metadata": {"type": "string", "contentMediaType": "application/json"},
        "input": {"type": "string", "contentMediaType": "application/json", "description": "URLs beside the files"},
        "webhook_url": {"type": "string"},
        "webhook_events": {"type": "string", "description": "Separated by commas"},
        "priority": {"enum": list(PRIORITIES)},
        "cancel_after": {"type": "integer"},
        "expires_in": {"type": "integer"},
        "input_retention": {"enum": ["until_expiry", "until_done"]},
        "cache": {"type": "boolean"},
    },
}
