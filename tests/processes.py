"""Finding the product's processes: the workers, their pool, and the child that trains."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

from servers import Stack
from support import wait_until


def children(pid: int) -> list[int]:
    """Return a process's children, those of every thread."""
    found: list[int] = []
    with suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            found += [int(child) for child in (thread / "children").read_text().split()]
    return found


def command(pid: int) -> str:
    """Return a process's command line."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return ""


def alive(pid: int) -> bool:
    """Return whether a process runs; one that nobody has waited for yet does not."""
    with suppress(OSError):
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    return False


def descendants(pid: int) -> list[int]:
    """Return a process and all that comes from it."""
    found = [pid]
    for child in children(pid):
        found += descendants(child)
    return found


def supervisors(stack: Stack, name: str = "train") -> list[int]:
    """Return a worker's main process and its pool."""
    root = stack.processes[name].pid
    return [pid for pid in descendants(root) if not is_child(pid) and "workers.fork_server" not in command(pid)]


def is_child(pid: int) -> bool:
    """Return whether a process trains: forked by the fork server, it leads a session of its own."""
    with suppress(OSError):
        return "workers.fork_server" in command(pid) and os.getsid(pid) == pid
    return False


def fork_server(stack: Stack, name: str = "train") -> int:
    """Return the process that forks the children."""
    root = stack.processes[name].pid
    return next(pid for pid in descendants(root) if "workers.fork_server" in command(pid) and not is_child(pid))


def find_child(stack: Stack, name: str = "train") -> int | None:
    """Return the process that trains, if there is one now."""
    root = stack.processes[name].pid
    return next((pid for pid in descendants(root) if is_child(pid) and alive(pid)), None)


def child(stack: Stack, name: str = "train") -> int:
    """Return the process that trains, waiting for it."""
    found = wait_until(lambda: find_child(stack, name), 30)
    assert found is not None
    return found


def resident(pid: int) -> int:
    """Return the bytes that a process has in memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def kill_worker(stack: Stack, name: str = "train") -> None:
    """Kill a worker's main process and pool at once, as a machine's end would; leave the child alone."""
    pids = supervisors(stack, name)
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    stack.processes.pop(name).wait(10)
