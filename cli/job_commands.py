"""`phi4 jobs`: see, watch, cancel, repeat and erase the jobs of a running service."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from cli.options import Json, Url, call

app = typer.Typer(
    help="See, watch, cancel, repeat and erase jobs.",
    rich_markup_mode=None,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

_JobId = Annotated[str, typer.Argument(metavar="ID", show_default=False)]
_Format = Literal["markdown", "text", "srt", "vtt", "json"]


@app.command("list")
def list_jobs(
    status: Annotated[str, typer.Option(help="Only jobs that stand so, such as failed.", show_default=False)] = "",
    type: Annotated[str, typer.Option(help="Only ocr, vqa or asr.", show_default=False)] = "",
    limit: Annotated[int, typer.Option(min=1, max=100)] = 20,
    owner: Annotated[str, typer.Option(help="Another owner's, with an admin key.", show_default=False)] = "",
    url: Url = "",
    as_json: Json = False,
) -> None:
    """List the newest jobs."""
    from cli import show

    listed = call(url, lambda remote: remote.newest(status=status, type=type, limit=limit, owner=owner))
    if as_json:
        for job in listed:
            show.write_json(job)
    else:
        show.jobs(listed)


@app.command("show")
def show_job(job_id: _JobId, url: Url = "", as_json: Json = False) -> None:
    """Show a job."""
    from cli import show

    job = call(url, lambda remote: remote.show(job_id))
    (show.write_json if as_json else show.job)(job)


@app.command("result")
def show_result(
    job_id: _JobId,
    format: Annotated[_Format, typer.Option(help="What to write.")] = "json",
    url: Url = "",
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
) -> None:
    """Write the result of a job."""
    from cli import show

    text = call(url, lambda remote: remote.result(job_id, "json" if as_json else format))
    show.write(text if text.endswith("\n") or not text else text + "\n")


@app.command("cancel")
def cancel_job(job_id: _JobId, url: Url = "", as_json: Json = False) -> None:
    """Cancel a job."""
    from cli import show

    job = call(url, lambda remote: remote.cancel(job_id))
    (show.write_json if as_json else show.job)(job)


@app.command("retry")
def retry_job(job_id: _JobId, url: Url = "", as_json: Json = False) -> None:
    """Run a failed or cancelled job again, while its input is kept."""
    from cli import show

    job = call(url, lambda remote: remote.retry(job_id))
    (show.write_json if as_json else show.job)(job)


@app.command("delete")
def delete_job(job_id: _JobId, url: Url = "", as_json: Json = False) -> None:
    """Erase a job with input and result; one that runs is stopped."""
    from cli import show

    answer = call(url, lambda remote: remote.delete(job_id))
    if as_json:
        show.write_json(answer)


@app.command("deliveries")
def list_deliveries(job_id: _JobId, url: Url = "", as_json: Json = False) -> None:
    """Show what became of a job's webhooks."""
    from cli import show

    for delivery in call(url, lambda remote: remote.deliveries(job_id)):
        (show.write_json if as_json else show.delivery)(delivery)


@app.command("replay")
def replay_delivery(
    job_id: _JobId,
    event: Annotated[str, typer.Argument(metavar="EVENT", show_default=False)],
    url: Url = "",
    as_json: Json = False,
) -> None:
    """Send a webhook again; `phi4 jobs deliveries` tells its id."""
    from cli import show

    answer = call(url, lambda remote: remote.replay(job_id, event))
    if as_json:
        show.write_json(answer)


@app.command("watch")
def watch_job(job_id: _JobId, url: Url = "", as_json: Json = False) -> None:
    """Follow a job to its end; exits with 0 when it completed."""
    from cli.watch import watch

    raise typer.Exit(call(url, lambda remote: watch(remote, job_id, as_json=as_json)))
