"""The command line: `anneal --help`.

Exit codes: 0 done, 1 a job or dataset failed or the request was refused, 2 wrong usage, 3 no service reached.
"""

import os
import sys
from typing import Annotated

import typer

from anneal.commands import datasets, galleries, jobs, keys, models, predict, queue, up, webhooks
from anneal.errors import AnnealError, ConnectionFailed

app = typer.Typer(
    name="anneal",
    help="Pretrain on unlabelled data, finetune on a few labels, predict over REST.",
    epilog="Start with `anneal demo`, or `anneal up` and then `anneal datasets upload FILE`.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.command("up")(up.up)
app.command("demo")(up.demo)
app.add_typer(datasets.app, name="datasets")
app.add_typer(jobs.app, name="jobs")
app.command("queue")(queue.show)
app.add_typer(models.app, name="models")
app.command("predict")(predict.predict)
app.add_typer(galleries.app, name="galleries")
app.add_typer(keys.app, name="keys")
app.add_typer(webhooks.app, name="webhooks")


@app.callback()
def connection(
    url: Annotated[
        str | None,
        typer.Option(help="The service's address; else ANNEAL_URL, else http://127.0.0.1:8000.", metavar="URL"),
    ] = None,
) -> None:
    """Take the options that every command shares.

    The key comes from ANNEAL_API_KEY or the data directory: on the command line any user could read it.
    """
    if url:
        os.environ["ANNEAL_URL"] = url


def main() -> None:
    """Run the command line and exit with its outcome."""
    try:
        app()
    except ConnectionFailed as error:
        sys.exit(_explained(error, 3))
    except AnnealError as error:
        sys.exit(_explained(error, 1))
    except BrokenPipeError:
        # The reader (`| head`) has gone; nothing is left to say, not even by the interpreter's last flush.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        # A file of this machine: a disk that is full, a right that is missing.
        where = f"{error.filename}: " if error.filename else ""
        sys.exit(_explained(AnnealError(f"{where}{error.strerror or error}."), 1))


def _explained(error: AnnealError, status: int) -> int:
    print(f"Error: {error}", file=sys.stderr)
    if error.request_id:
        print(f"(request {error.request_id})", file=sys.stderr)
    return status
