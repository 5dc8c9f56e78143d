"""`anneal up` and `anneal demo`: start a service on this machine."""

import os
from pathlib import Path
from typing import Annotated

import typer


def up(
    data_dir: Annotated[
        Path, typer.Option(help="Where everything is kept.", envvar="ANNEAL_DATA_DIR", show_default=True)
    ] = Path(".anneal"),
    host: Annotated[str, typer.Option(help="The address to listen on.", envvar="ANNEAL_HOST")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port.", envvar="ANNEAL_PORT", min=1, max=65535)] = 8000,
    workers: Annotated[int, typer.Option(help="How many jobs run at once.", min=0, max=64)] = 1,
) -> None:
    """Start the service and its workers here, until Ctrl-C."""
    from anneal.launcher import Launcher, LauncherSettings, interrupt_on_stop_signals

    interrupt_on_stop_signals()
    settings = LauncherSettings(data_dir=data_dir, host=host, port=port, workers=workers, echo_logs=True)
    with Launcher(settings, say=_say) as launcher:
        _say(
            f"\nAnneal is ready at {settings.url}\n"
            f"  documentation  {settings.url}/docs\n"
            f"  API key        {launcher.key_path} (the client on this machine finds it)\n"
            f"  logs           {data_dir / 'logs'}\n"
            "Stop it with Ctrl-C.\n"
        )
        launcher.run()


def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Leave the service running afterwards, until Ctrl-C.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as JSON.")] = False,
) -> None:
    """Pretrain, finetune and predict on real medical data, in about a minute, leaving nothing behind."""
    from anneal.demo import run_demo
    from anneal.launcher import interrupt_on_stop_signals

    interrupt_on_stop_signals()
    run_demo(keep=keep, as_json=as_json, environment=dict(os.environ))


def _say(text: str) -> None:
    print(text, flush=True)
