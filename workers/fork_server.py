"""`python -m workers.fork_server`: a process that has imported what a child needs and forks one for each attempt.

Importing torch takes seconds, and forking takes milliseconds. It is safe because nothing has run before the fork:
no tensor operation, no thread, no CUDA context, no database. It is started by a pool process, ends with it, and gets
the child's three files with each request, so that it holds no end of any pipe itself.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import socket
import sys

from workers.protocol import FORK_MESSAGE_BYTES, INGESTION, TRAINING

_FILES = 3  # stdin, stdout, stderr


def main() -> None:
    """Import, then fork on request until the other end of the socket is gone."""
    owner = socket.socket(fileno=int(sys.argv[1]))
    _import(set(sys.argv[2:]))
    # A signal to the whole group is the owner's business; this process ends when the owner does.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    gc.collect()
    gc.freeze()  # a collection in a child would copy every page that it looks at
    _tell(owner, {"ready": os.getpid()})
    _serve(owner)


def _import(wanted: set[str]) -> None:
    import workers.child

    if INGESTION in wanted:
        import workers.ingestion_run
    if TRAINING in wanted:
        import torch._dynamo  # noqa: F401 - the first step of an optimizer imports it

        import workers.training_run  # noqa: F401


def _serve(owner: socket.socket) -> None:
    children: dict[int, int] = {}  # file descriptor of the process to its id
    while True:
        ready, _, _ = select.select([owner.fileno(), *children], [], [])
        for entry in ready:
            if entry == owner.fileno():
                message, files = _hear(owner)
                if not message:
                    return
                pid = _fork(owner, json.loads(message)["directory"], files)
                children[os.pidfd_open(pid)] = pid
                _tell(owner, {"pid": pid})
                continue
            pid = children.pop(entry)
            os.close(entry)
            _, status = os.waitpid(pid, 0)
            _tell(owner, {"pid": pid, "code": os.waitstatus_to_exitcode(status)})


def _hear(owner: socket.socket) -> tuple[bytes, list[int]]:
    try:
        message, files, _, _ = socket.recv_fds(owner, FORK_MESSAGE_BYTES, _FILES)
    except ConnectionResetError:  # the owner was killed with something of ours unread
        return b"", []
    return message, files


def _tell(owner: socket.socket, message: dict[str, int]) -> None:
    try:
        owner.send(json.dumps(message).encode())
    except OSError:
        sys.exit()  # the owner is gone


def _fork(owner: socket.socket, directory: str, files: list[int]) -> int:
    pid = os.fork()
    if pid:
        for file in files:
            os.close(file)
        return pid
    try:
        os.setsid()  # its own group, so that nothing it starts outlives it
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        for target, file in enumerate(files):
            os.dup2(file, target)
            os.close(file)
        owner.close()
        os.chdir(directory)
        from workers.child import run

        run()
    finally:
        os._exit(1)


if __name__ == "__main__":
    main()
