"""The API's description at /openapi.json and, readable and tryable, at /docs; everything is served from packages."""

from __future__ import annotations

import secrets
from pathlib import Path

import flask_swagger_ui
from flask import Blueprint, Response, jsonify, send_from_directory

from api import auth
from api.openapi import document
from api.services import Services

_SWAGGER_UI = Path(flask_swagger_ui.__file__).parent / "dist"
_FILES = ("swagger-ui.css", "swagger-ui-bundle.js", "favicon-32x32.png")
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
  <meta charset="utf-8">
  <meta name="viewport" content="width=device-width, initial-scale=1">
  <title>phi4 API</title>
  <link rel="stylesheet" href="docs/swagger-ui.css">
  <link rel="icon" type="image/png" href="docs/favicon-32x32.png">
</head>
<body>
  <p class="swagger-ui" style="padding: 1rem 20px 0; max-width: 1460px; margin: auto"><a href="./">← phi4</a></p>
  <div id="ui"></div>
  <script nonce="{nonce}" src="docs/swagger-ui-bundle.js"></script>
  <script nonce="{nonce}">
    SwaggerUIBundle({{url: "openapi.json", dom_id: "#ui", deepLinking: true, docExpansion: "list"}});
  </script>
</body>
</html>
"""


def blueprint(services: Services) -> Blueprint:
    """Make the routes over the services of this process."""
    routes = Blueprint("docs", __name__)
    described = document(services.settings.served_name)

    @routes.get("/openapi.json")
    @auth.free
    def openapi() -> Response:
        """Describe the API."""
        return jsonify(described)

    @routes.get("/docs")
    @auth.free
    def docs() -> Response:
        """Show the description as a page; a nonce lets its one inline script run, and no other."""
        nonce = secrets.token_urlsafe(16)
        response = Response(_PAGE.format(nonce=nonce), mimetype="text/html")
        response.headers["Content-Security-Policy"] = (
            f"default-src 'self'; script-src 'nonce-{nonce}'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
            "object-src 'none'; base-uri 'none'; frame-ancestors 'none'"
        )
        return response

    @routes.get(f"/docs/<any({', '.join(repr(f) for f in _FILES)}):name>")
    @auth.free
    def docs_file(name: str) -> Response:
        """Serve one file of the page."""
        return send_from_directory(_SWAGGER_UI, name, max_age=86_400)

    return routes
