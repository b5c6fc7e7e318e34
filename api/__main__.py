"""`python -m api` serves the API with gunicorn's threads until SIGTERM."""

from __future__ import annotations

import logging
import sys

from api.server import Server
from phi4.log import log, set_up
from phi4.settings import SettingsError, load

_log = logging.getLogger("api")


def main() -> None:
    """Serve until told to stop."""
    try:
        settings = load()
    except SettingsError as error:
        sys.exit(str(error))
    set_up(settings.log_format, settings.log_level)
    log(_log, "API starts", host=settings.host, port=settings.port)
    Server(settings).run()


if __name__ == "__main__":
    main()
