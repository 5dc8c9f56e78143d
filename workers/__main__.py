"""`python -m workers`: run jobs until told to stop; SIGTERM puts running ones back in the queue at a checkpoint."""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

from store.queue import QUEUES
from store.settings import StoreSettings
from workers.app import create_worker, worker_arguments
from workers.liveness import keep_alive_file


def main() -> None:
    """Start the worker."""
    parser = argparse.ArgumentParser(prog="python -m workers", description=__doc__)
    parser.add_argument("--queue", action="append", choices=QUEUES, help="queue to serve; default: all of them")
    parser.add_argument("--concurrency", type=int, default=1, help="jobs at a time (default 1)")
    parser.add_argument(
        "--alive-file", type=Path, metavar="PATH", help="file to touch every 5 seconds as a sign of life"
    )
    options = parser.parse_args()
    # Celery's warning is about pickled messages; ours are JSON only.
    warnings.filterwarnings("ignore", message="You're running the worker with superuser")
    settings = StoreSettings()
    settings.make_directories()
    queues = tuple(options.queue or QUEUES)
    app = create_worker(settings, queues)
    if options.alive_file:
        keep_alive_file(app, options.alive_file)
    app.worker_main(worker_arguments(settings, queues, options.concurrency))


if __name__ == "__main__":
    main()
