"""The web console at /: a page with its styles and modules, served from the package and kept by browsers."""

from __future__ import annotations

import hashlib
from pathlib import Path

from flask import Blueprint, Response, abort, request, send_from_directory
from flask.typing import ResponseReturnValue

from api import auth

STATIC = Path(__file__).parent / "static"
#: Told here, since what a machine takes `.js` for is up to its administrator.
_TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
_PAGE = "index.html"
_FOREVER_S = 31_536_000
_HEADERS = {
    # Scripts and styles come from files alone, and no script can make elements of text: a file's name or a
    # result that looks like HTML stays text even where the page errs. Blobs are the files that its user chose.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' blob:; "
        "media-src blob:; frame-src blob:; object-src blob:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
}


def blueprint(_: object) -> Blueprint:
    """Make the routes; the page needs nothing of the services but the API itself."""
    routes = Blueprint("console", __name__)
    files = {path.name: path.read_bytes() for path in sorted(STATIC.iterdir()) if path.suffix in _TYPES}
    version = _version_of(files)
    page = (STATIC / _PAGE).read_text().replace("{version}", version)

    @routes.get("/")
    @auth.free
    def root() -> ResponseReturnValue:
        """Show the page; browsers ask each time whether it is still the same."""
        response = Response(page, mimetype="text/html", headers=_HEADERS)
        response.cache_control.no_cache = True
        response.add_etag()
        return response.make_conditional(request)

    @routes.get("/console/<version_asked>/<name>")
    @auth.free
    def static(version_asked: str, name: str) -> Response:
        """Serve one file of the page; its address names its content, so browsers keep it."""
        if version_asked != version or name not in files:
            abort(404)
        response = send_from_directory(STATIC, name, mimetype=_TYPES[Path(name).suffix], max_age=_FOREVER_S)
        response.cache_control.public = True
        response.cache_control.immutable = True
        return response

    return routes


def _version_of(files: dict[str, bytes]) -> str:
    digest = hashlib.sha256()
    for name, content in files.items():
        digest.update(f"{name} {len(content)}\n".encode() + content)
    return digest.hexdigest()[:12]
