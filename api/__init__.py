"""The HTTP side: parse, authorise, one call, answer."""

from api.app import create_app

__all__ = ["create_app"]
