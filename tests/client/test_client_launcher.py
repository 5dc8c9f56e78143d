"""The launcher with programs of a few lines in the places of service, workers and migrations."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from anneal.errors import AnnealError
from anneal.launcher import free_port, require_server

ROOT = Path(__file__).resolve().parents[2]
SERVICE = """
import os, http.server
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b'{"process": %d}' % os.getpid()
        self.send_response(200); self.send_header("Content-Length", str(len(body))); self.end_headers()
        self.wfile.write(body)
    def log_message(self, *words):
        pass
print("service is process", os.getpid(), flush=True)
address = (os.environ["ANNEAL_HOST"], int(os.environ["ANNEAL_PORT"]))
http.server.ThreadingHTTPServer(address, Handler).serve_forever()
"""
# Has a child of its own, as a worker has while it trains.
WORKERS = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
print("worker is process", os.getpid(), "with", child.pid, flush=True)
time.sleep(300)
"""


class Up:
    """An `anneal up` under test."""

    def __init__(self, site: Path, data_dir: Path, port: int, *arguments: str) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("ANNEAL_")}
        self.data_dir = data_dir
        self.output = data_dir.parent / f"output-{time.monotonic_ns()}"
        command = [sys.executable, "-m", "anneal", "up", "--data-dir", str(data_dir), "--port", str(port)]
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [*command, *arguments],
                env={**environment, "PYTHONPATH": str(site)},
                cwd=data_dir.parent,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def text(self) -> str:
        return self.output.read_text()

    def says(self, text: str, seconds: float = 30.0) -> str:
        until(lambda: text in self.text() or self.process.poll() is not None, seconds)
        assert text in self.text(), self.text()
        return self.text()

    def pids(self) -> list[int]:
        """Return the processes the programs' logs name: of the service, the worker and the worker's child."""
        words = " ".join(log.read_text() for log in sorted((self.data_dir / "logs").glob("*.log"))).split()
        return [int(word) for word in words if word.isdigit()]


@pytest.fixture
def site(tmp_path: Path) -> Path:
    folder = tmp_path / "site"
    shutil.copytree(ROOT / "anneal", folder / "anneal", ignore=shutil.ignore_patterns("__pycache__"))
    for name, program in {"service": SERVICE, "workers": WORKERS, "migrations": "print('done')"}.items():
        (folder / name).mkdir()
        (folder / name / "__init__.py").touch()
        (folder / name / "__main__.py").write_text(program)
    return folder


@pytest.fixture
def up(site: Path, tmp_path: Path) -> Iterator[Callable[..., Up]]:
    started: list[Up] = []

    def start(*arguments: str, port: int | None = None) -> Up:
        started.append(Up(site, tmp_path / "data", port or free_port(), *arguments))
        return started[-1]

    yield start
    for launcher in started:
        launcher.process.terminate()
        launcher.process.wait(60)


def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_it_starts_everything_shows_the_logs_and_stops_everything(up, tmp_path: Path):
    # A folder that happens to be called `workers` where the user stands must not be taken for ours.
    (tmp_path / "workers").mkdir()
    (tmp_path / "workers" / "__init__.py").write_text("raise RuntimeError('the wrong one')")
    launcher = up("--workers", "2")

    said = launcher.says("Anneal is ready")
    launcher.says("worker-2 | worker is process")
    # The service, and three workers with a child each: one is for uploads.
    until(lambda: len(launcher.pids()) == 7)
    pids = launcher.pids()

    assert f"{tmp_path / 'data' / 'api_key'}" in said
    assert all(map(is_running, pids))
    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700
    launcher.process.terminate()
    assert launcher.process.wait(30) == 0
    assert not any(map(is_running, pids))
    assert "Stopping" in launcher.text()


def test_a_second_launcher_is_refused_and_told_which_process_is_the_first(up):
    first = up()
    first.says("Anneal is ready")

    second = up()

    assert second.process.wait(30) == 1
    assert f"Error: Another launcher (process {first.process.pid}) already runs on" in second.text()
    assert first.process.poll() is None


def test_what_dies_is_started_again(up):
    launcher = up()
    launcher.says("Anneal is ready")
    launcher.says("worker-1 | worker is process")
    *_, worker, child = launcher.pids()  # those of worker-1, whose log comes last

    os.kill(worker, signal.SIGKILL)

    launcher.says("worker-1 was killed by SIGKILL; starting it again in 0.5 s")
    launcher.says("worker-1 started again")
    until(lambda: len(launcher.pids()) == 7)
    assert not is_running(child)


def test_a_killed_launcher_leaves_nothing_behind_and_the_next_one_can_start(up):
    first = up()
    first.says("Anneal is ready")
    first.says("worker-1 | worker is process")
    pids = first.pids()

    first.process.kill()
    first.process.wait()
    second = up()

    second.says("Anneal is ready")
    assert not any(map(is_running, pids))


def test_a_program_that_dies_at_once_ends_the_start_with_its_last_words(up, site: Path):
    (site / "service" / "__main__.py").write_text("raise SystemExit('ANNEAL_SOMETHING is wrong')")

    launcher = up()

    assert launcher.process.wait(30) == 1
    assert "api ended with status 1 before the service was ready" in launcher.text()
    assert "ANNEAL_SOMETHING is wrong" in launcher.text()
    assert not any(map(is_running, launcher.pids()))


def test_a_program_that_is_killed_while_it_starts_is_started_again(up, site: Path, tmp_path: Path):
    program = (site / "service" / "__main__.py").read_text()
    once = f"""
import os, pathlib, signal
mark = pathlib.Path({str(tmp_path / "mark")!r})
if not mark.exists():
    mark.touch()
    os.kill(os.getpid(), signal.SIGKILL)
"""
    (site / "service" / "__main__.py").write_text(once + program)

    launcher = up()

    launcher.says("api was killed by SIGKILL; starting it again in 0.5 s")
    launcher.says("Anneal is ready")


def test_missing_migrations_are_told_plainly(up, site: Path):
    (site / "migrations" / "__main__.py").unlink()

    launcher = up()

    assert launcher.process.wait(30) == 1
    assert "Error: The database could not be created or brought up to date" in launcher.text()
    assert "No module named migrations.__main__" in launcher.text()
    assert "Traceback" not in launcher.text()


def test_a_taken_port_is_named_with_the_option_that_changes_it(up):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        launcher = up(port=port)

        assert launcher.process.wait(30) == 1

    assert f"Error: Port {port} on 127.0.0.1 cannot be used: Address already in use." in launcher.text()
    assert f"--port {port + 1}" in launcher.text()


def test_without_the_services_packages_it_says_what_to_install():
    require_server(("json",))
    with pytest.raises(AnnealError, match=r"pip install 'anneal\[server\]'"):
        require_server(("json", "no_such_package"))


def test_a_data_directory_that_cannot_be_one_is_named_with_the_way_out(up, tmp_path: Path):
    (tmp_path / "data").write_text("not a folder")

    launcher = up()

    assert launcher.process.wait(30) == 1
    assert f"Error: The data directory {tmp_path / 'data'} cannot be used" in launcher.text()
    assert "ANNEAL_DATA_DIR" in launcher.text()
    assert "Traceback" not in launcher.text()
    assert (tmp_path / "data").read_text() == "not a folder"


def test_an_address_that_is_not_this_machines_is_named(up):
    launcher = up("--host", "192.0.2.1")

    assert launcher.process.wait(30) == 1
    assert 'Error: "192.0.2.1" is no address of this machine' in launcher.text()
    assert "--host 127.0.0.1" in launcher.text()


def test_another_service_that_takes_the_port_meanwhile_is_not_taken_for_ours(up, site: Path, tmp_path: Path):
    class Ready(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = b'{"process": %d}' % os.getpid()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    looked, taken = tmp_path / "looked", tmp_path / "taken"
    # Runs after the launcher has found the port free, and before its service listens.
    migration = f"""
import pathlib, time
pathlib.Path({str(looked)!r}).touch()
while not pathlib.Path({str(taken)!r}).exists():
    time.sleep(0.05)
"""
    (site / "migrations" / "__main__.py").write_text(migration)
    own = site / "service" / "__main__.py"
    own.write_text("import time; time.sleep(2)\n" + own.read_text())
    port = free_port()
    launcher = up(port=port)
    until(looked.exists)
    with ThreadingHTTPServer(("127.0.0.1", port), Ready) as other:
        threading.Thread(target=other.serve_forever, kwargs={"poll_interval": 0.05}).start()
        taken.touch()
        ended = launcher.process.wait(30)
        other.shutdown()

    assert ended == 1
    assert "Anneal is ready" not in launcher.text()
    assert "api ended with status 1 before the service was ready" in launcher.text()
    assert "Address already in use" in launcher.text()
