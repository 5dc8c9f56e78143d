"""What is left of a subject on the disk once it was forgotten: nothing."""

from __future__ import annotations

import time
from pathlib import Path

import httpx
from media_files import packed
from servers import Stack
from support import submit, succeeded, upload
from test_galleries import face, learn, text

from store.upkeep import COLLECT_S

WORDS = "Xanthippe-7f3a9c", "noted-51e8d2"


def traces(directory: Path) -> set[str]:
    """The files of a directory that have one of the words."""
    sought = [word.encode() for word in WORDS]
    files = [path for path in directory.rglob("*") if path.is_file()]
    return {path.name for path in files if any(word in path.read_bytes() for word in sought)}


def test_of_the_forgotten_no_byte_is_left(embedded: Stack, running: httpx.Client, tmp_path: Path) -> None:
    members = {f"p{person}/{number}.png": face(person, number) for person in range(8) for number in range(4)}
    dataset = upload(running, packed(tmp_path / "few.zip", members))["id"]
    quick = {"epochs": 1, "batch_size": 8, "learning_rate": 3e-3}
    succeeded(running, submit(running, learn(dataset, output={"model": "forgetful"}, hyperparameters=quick)))
    made = running.post("/galleries", json={"name": "forgetful", "model": "forgetful"})
    assert made.status_code == 201, made.text
    path = "/galleries/forgetful/subjects"
    asked = {"name": WORDS[0], "inputs": [text(face(610, 0))], "metadata": {"note": WORDS[1]}}
    enrolled = running.post(path, json=asked, headers={"Idempotency-Key": "forgotten"})
    assert enrolled.status_code == 201, enrolled.text
    other = {"name": "somebody else", "inputs": [text(face(611, 0))]}
    assert running.post(path, json=other).status_code == 201
    assert traces(embedded.data_dir)
    assert running.delete(f"{path}/{enrolled.json()['id']}").status_code == 204
    until = time.monotonic() + COLLECT_S + 5
    while (left := traces(embedded.data_dir)) and time.monotonic() < until:
        time.sleep(0.5)
    assert not left
    assert [one["name"] for one in running.get(path).json()["data"]] == ["somebody else"]
