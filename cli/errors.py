"""How every command says what went wrong: one line, and an exit code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer


@contextmanager
def plain_errors() -> Iterator[None]:
    """Say in one line what went wrong, and exit: 1, 2 for wrong settings, 130 after Ctrl-C."""
    from cli import show
    from cli.remote import Refused, RemoteError
    from cli.supervisor import StartFailed
    from phi4.errors import Phi4Error
    from phi4.settings import SettingsError

    try:
        yield
    except Refused as refusal:
        show.complain(f"{refusal.message} ({refusal.code})")
    except RemoteError as error:
        show.complain(error.message)
    except (Phi4Error, StartFailed) as error:
        show.complain(str(error))
    except SettingsError as error:
        show.complain(str(error))
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    else:
        return
    raise typer.Exit(1)
