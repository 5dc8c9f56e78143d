"""Large files in parts, from the real client to the real service: what has arrived is not sent again."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from servers import Stack

import anneal
from anneal.client import Client
from anneal.errors import AnnealError
from anneal.model_archive import archive_of

PART = 8 << 20


class Line:
    """A line to the service that breaks once so many bytes have gone over it, again and again."""

    def __init__(self, port: int, breaks_after: int) -> None:
        self._port = port
        self._breaks_after = breaks_after
        self.carried = 0
        self.broken = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._connect, args=(near,), daemon=True).start()

    def _connect(self, near: socket.socket) -> None:
        with near, socket.create_connection(("127.0.0.1", self._port)) as far:
            back = threading.Thread(target=self._carry, args=(far, near, False), daemon=True)
            back.start()
            self._carry(near, far, True)
            back.join()

    def _carry(self, source: socket.socket, target: socket.socket, up: bool) -> None:
        with suppress(OSError):
            while (data := source.recv(65536)) and not (up and self._breaks(len(data))):
                target.sendall(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _breaks(self, count: int) -> bool:
        self.carried += count
        if self.carried <= self._breaks_after * (self.broken + 1):
            return False
        self.broken += 1
        return True

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes whoever waits in accept
        self._listener.close()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of 26 MB in four parts, of which the service keeps nothing yet."""
    path = tmp_path_factory.mktemp("large") / "large.csv"
    line = ",".join(["0.1234567"] * 100) + "\n"
    path.write_text(",".join(f"c{n}" for n in range(100)) + "\n" + line * 26_000)
    assert 3 * PART < path.stat().st_size < 4 * PART
    return path


@pytest.fixture
def line(embedded: Stack) -> Iterator[Line]:
    made = Line(embedded.port, breaks_after=PART + 1_000_000)
    yield made
    made.close()


def test_a_line_that_breaks_again_and_again(embedded: Stack, line: Line, file: Path) -> None:
    seen: list[tuple[int, int]] = []
    with Client(line.url, embedded.key) as client:
        dataset = client.datasets.upload(
            file, name="large", metadata={"n": 1}, parts_above=1000, progress=lambda *args: seen.append(args)
        )
    size = file.stat().st_size
    assert line.broken >= 2
    assert dataset.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert (dataset.name, dataset.filename, dataset.bytes) == ("large", "large.csv", size)
    assert seen == [(n * PART, size) for n in range(4)] + [(size, size)]

    before = line.carried
    with Client(line.url, embedded.key) as client:
        again = client.datasets.upload(file, parts_above=1000)
    assert (again.sha256, again.id != dataset.id) == (dataset.sha256, True)
    assert line.carried - before < 10_000  # the service has it
    with Client(embedded.url, embedded.key) as client:
        client.datasets.delete(dataset.id)
        client.datasets.delete(again.id)


def test_the_command_goes_on_where_it_was_killed(embedded: Stack, tmp_path: Path) -> None:
    path = tmp_path / "killed.csv"
    path.write_bytes(b"a,b\n" + os.urandom(PART).hex().encode() + b",1\n")
    command = [sys.executable, "-m", "anneal", "datasets", "upload", str(path), "--parts-above", "1000", "--json"]
    environment = {**os.environ, "ANNEAL_URL": embedded.url, "ANNEAL_API_KEY": embedded.key}
    cut = Line(embedded.port, breaks_after=PART + 1_000_000)
    try:
        # One part arrives; then the line is cut for good, and the command gives up or is killed.
        first = subprocess.Popen(
            command, env={**environment, "ANNEAL_URL": cut.url}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        while not cut.broken:
            assert first.poll() is None
        cut.close()
        first.kill()
        first.communicate()
    finally:
        cut.close()
    with embedded.client() as api:
        (upload,) = api.get("/uploads", params={"filename": "killed.csv"}).json()["data"]
        assert (upload["status"], upload["missing_parts"]) == ("open", [2, 3])
        second = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=90, check=False)
        (after,) = api.get("/uploads", params={"filename": "killed.csv"}).json()["data"]
    assert (after["id"], after["status"]) == (upload["id"], "completed"), second.stderr
    assert '"name": "killed"' in second.stdout


def test_what_has_arrived_is_told_when_the_service_is_gone(
    embedded: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "cut.csv"
    file.write_bytes(b"a,b\n" + os.urandom(PART).hex().encode() + b",1\n")
    monkeypatch.setattr("anneal.uploads.PATIENT", anneal.client.RetryPolicy(retries=0))
    cut = Line(embedded.port, breaks_after=PART + 1_000_000)
    with Client(cut.url, embedded.key) as client, pytest.raises(anneal.ConnectionFailed) as caught:
        client.datasets.upload(file, parts_above=1000)
    cut.close()
    assert "1 of 3 parts" in str(caught.value)
    assert "the same call again goes on" in str(caught.value)


def test_a_model_of_old_files_is_sent_without_folders_that_are_called_like_files(tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_text(name)
        os.utime(tmp_path / name, (0, 0))  # before zip archives knew a date
    (tmp_path / "cache.safetensors").mkdir()
    with archive_of(tmp_path) as path, zipfile.ZipFile(path) as archive:
        assert {name: archive.read(name).decode() for name in archive.namelist()} == {
            "config.json": "config.json",
            "model.safetensors": "model.safetensors",
        }
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(AnnealError, match="no weights in safetensors files"), archive_of(tmp_path):
        pass
