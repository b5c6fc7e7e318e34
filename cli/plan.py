"""The `phi4 plan` command: which GPU carries which context length, from the arithmetic that the worker itself uses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from worker.engines.gpu import Card


def _sensible(value: float | None) -> float | None:
    # Written so that "nan" is refused too.
    if value is not None and not 1 <= value <= 10_000:
        raise typer.BadParameter("must be between 1 and 10000.")
    return value


def plan(
    gpu_memory: Annotated[
        float | None,
        typer.Option(metavar="GB", callback=_sensible, help="A GPU's memory as nvidia-smi shows it.  [default: yours]"),
    ] = None,
    parallel: Annotated[int, typer.Option(min=1, max=1024, help="Requests of full length at once.")] = 4,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Show which GPU carries which context length."""
    from cli import plan_table, show
    from phi4.settings import SettingsError, load
    from worker.engines.checkpoint import ModelFilesMissing, known_config
    from worker.engines.memory import Shape

    try:
        settings = load()
        shape = Shape.of(known_config(settings.checkpoint, settings.checkpoint_revision))
    except SettingsError as error:
        show.complain(str(error))
        raise typer.Exit(2) from None
    except ModelFilesMissing as error:
        show.complain(str(error))
        raise typer.Exit(1) from None
    requests = sorted({1, parallel})
    if as_json:
        show.write_json({"model": settings.checkpoint, "plan": list(plan_table.rows(shape, requests))})
        return
    plan_table.write(shape, requests)
    for card in _cards(gpu_memory):
        show.write(f"\n{plan_table.describe(card, shape, settings, requests)}\n")


def _cards(gpu_memory: float | None) -> tuple[Card, ...]:
    from worker.engines.gpu import Card, cards

    if gpu_memory is None:
        return cards()
    size = int(gpu_memory * 2**30)
    return (Card(0, "", f"--gpu-memory {gpu_memory:g}", "", size, size),)
