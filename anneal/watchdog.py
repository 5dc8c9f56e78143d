"""The launcher's shadow: stops what the launcher started when the launcher itself is killed.

A process that dies of SIGKILL can clean up nothing, so this second, tiny process does it. It reads from a
pipe whose only writing end is the launcher's: "+123" for a process group started, "-123" for one ended. The
kernel closes the pipe when the launcher dies, however it dies, and what is still on the list is stopped. Why
not the two usual ways: PR_SET_PDEATHSIG exists on Linux only, follows the death of the starting thread
rather than the process, and does not reach grandchildren; a watching wrapper around each child would put
itself between the launcher and the child's signals.

Run with `python -I -S`: standard library only. It also holds the launcher's lock (an inherited descriptor),
so that no new launcher starts on the same data directory while old processes are still there.
"""

import os
import signal
import sys
import time
from contextlib import suppress

GRACE_S = 10.0


def main() -> None:
    """Read the list from stdin until the launcher is gone, then stop what is left on it."""
    # A Ctrl-C in the terminal is the launcher's business.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    stop(read_groups())


def read_groups() -> set[int]:
    """Return the groups on the list at the moment the pipe is closed."""
    groups: set[int] = set()
    for line in sys.stdin:
        change = groups.add if line.startswith("+") else groups.discard
        change(int(line[1:]))
    return groups


def stop(groups: set[int]) -> None:
    """Ask the groups to end, wait, and kill what has not."""
    for group in groups:
        signal_group(group, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_S
    while any(is_alive(group) for group in groups) and time.monotonic() < deadline:
        time.sleep(0.1)
    for group in groups:
        signal_group(group, signal.SIGKILL)


def signal_group(group: int, number: int) -> None:
    """Send a signal to a process group, which may be gone."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def is_alive(group: int) -> bool:
    """Say whether any process of a group is left."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


if __name__ == "__main__":
    main()
