"""kill -9 at every file operation of writing a checkpoint: the one before loads, and what is left over goes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from learning import checkpoint
from learning.checkpoint import Position, TrainingState
from learning.errors import CorruptCheckpoint
from store.artifacts import ArtifactStore

# For n = 1, 2, ... forks a process that kills itself at its n-th operation on files, until one comes to its end; each
# in a directory of that name. Prints how many were killed.
WRITE = """
import os, pathlib, shutil, signal, sys
sys.path.insert(0, sys.argv[1])
operations = fatal = 0
def counted(function):
    def call(*arguments, **options):
        global operations
        operations += 1
        if operations == fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **options)
    return call
import test_checkpoint_writing as tests
while True:
    fatal += 1
    directory = pathlib.Path(sys.argv[2]) / str(fatal)
    directory.mkdir()
    tests.before_{name}(directory)
    pid = os.fork()
    if pid == 0:
{patches}
        tests.{name}(directory)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code == 0:
        break
    assert code == -signal.SIGKILL, code
print(fatal - 1)
"""
OF_A_CHECKPOINT = """
        from learning import checkpoint
        checkpoint.save_file = counted(checkpoint.save_file)
        pathlib.Path.write_text = counted(pathlib.Path.write_text)
        pathlib.Path.mkdir = counted(pathlib.Path.mkdir)
        pathlib.Path.rename = counted(pathlib.Path.rename)
        os.fsync = counted(os.fsync)
        shutil.rmtree = counted(shutil.rmtree)
"""
OF_AN_ARTIFACT = """
        pathlib.Path.mkdir = counted(pathlib.Path.mkdir)
        pathlib.Path.rename = counted(pathlib.Path.rename)
        os.fsync = counted(os.fsync)
"""


def state(step: int) -> TrainingState:
    tensors = {"w": torch.full((1000,), float(step))}
    return TrainingState(Position(step=step), {"format_version": 1}, tensors, tensors, {}, checkpoint.random_states())


def write_second(directory: Path) -> None:
    checkpoint.write(state(2), directory / "step-2")


def write_artifact(directory: Path) -> None:
    ArtifactStore(directory).write([b"one ", b"two"])


def before_write_second(directory: Path) -> None:
    checkpoint.write(state(1), directory / "step-1")


def before_write_artifact(directory: Path) -> None:
    assert not list(directory.iterdir())


def killed(directory: Path, name: str, patches: str) -> list[Path]:
    """Return the directories in which a writer was killed."""
    code = WRITE.format(name=name, patches=patches)
    here = str(Path(__file__).parent)
    command = [sys.executable, "-c", code, here, str(directory)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return [directory / str(number) for number in range(1, int(done.stdout) + 1)]


def test_killed_in_every_phase(tmp_path: Path) -> None:
    directories = killed(tmp_path, "write_second", OF_A_CHECKPOINT)
    assert len(directories) >= 10
    for directory in directories:
        assert checkpoint.read(directory / "step-1").position.step == 1
        if (directory / "step-2").exists():  # renamed: then it is whole
            assert checkpoint.read(directory / "step-2").position.step == 2
        write_second(directory)
        assert torch.equal(checkpoint.read(directory / "step-2").weights["w"], torch.full((1000,), 2.0))
        assert sorted(path.name for path in directory.iterdir()) == ["step-1", "step-2"]


def test_an_artifact_is_whole_or_not_there(tmp_path: Path) -> None:
    directories = killed(tmp_path, "write_artifact", OF_AN_ARTIFACT)
    assert len(directories) >= 3
    for directory in directories:
        store = ArtifactStore(directory)
        for path in directory.glob("[0-9a-f][0-9a-f]/*"):
            store.verify(path.name)
        written = store.write([b"one two"])
        assert store.verify(written.sha256).read_bytes() == b"one two"
        store.remove_leftovers(-1)
        assert not list((directory / "incoming").iterdir())


@pytest.mark.parametrize("damage", ["flip", "truncate", "delete"])
@pytest.mark.parametrize("name", ["state.safetensors", "state.json", "config.json", "checksums.json"])
def test_damage_of_any_file_is_found(tmp_path: Path, name: str, damage: str) -> None:
    path = checkpoint.write(state(1), tmp_path / "step-1") / name
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif damage == "truncate":
        path.write_bytes(content[: len(content) // 2])
    else:
        path.unlink()
    with pytest.raises(CorruptCheckpoint):
        checkpoint.read(tmp_path / "step-1")
