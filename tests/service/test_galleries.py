"""Galleries: from an archive of faces to who somebody is, and what a gallery refuses."""

from __future__ import annotations

import base64
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from media_files import encoded, packed, png, wav
from PIL import Image
from servers import Stack
from sqlalchemy import func, select
from support import classify, finished, problem, stack_database, submit, succeeded, upload

from store.artifacts import ArtifactStore
from store.collection import Collector
from store.gallery_records import GalleryRecord, SampleRecord, SubjectRecord

SIDE = 24
FLAT = {"name": "flatten-mlp", "hidden_sizes": [64]}
DEEP = {"name": "resnet", "depths": [1, 1], "widths": [8, 16]}
PEOPLE = 40


def face(person: int, number: int) -> bytes:
    """A picture of somebody: a few large blocks that are this person's, in another light and with some noise."""
    own = np.random.default_rng(1000 + person).integers(40, 215, (4, 4)).astype(float)
    chance = np.random.default_rng([person, number])
    pixels = np.kron(own, np.ones((SIDE // 4, SIDE // 4))) * chance.uniform(0.85, 1.15) + chance.normal(
        0, 8, (SIDE, SIDE)
    )
    return encoded(Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8), "L"))


def text(content: bytes) -> str:
    return base64.b64encode(content).decode()


def learn(dataset: str, **fields: Any) -> dict[str, Any]:
    return {
        "kind": "finetune", "task": "image-embedding", "architecture": FLAT, "dataset": dataset,
        "columns": {"target": "label"}, "hyperparameters": {"epochs": 12, "batch_size": 16, "learning_rate": 3e-3},
        "task_config": {"embedding_size": 16, "augmentation": "none"},
        "split": {"group": "label", "validation": 0.25}, **fields,
    }  # fmt: skip


@pytest.fixture(scope="session")
def faces(embedded: Stack, running: httpx.Client, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The dataset and the two versions of `faces`, of other widths; what the first one's job says."""
    path = tmp_path_factory.mktemp("faces") / "faces.zip"
    members = {f"p{person:02}/{number}.png": face(person, number) for person in range(PEOPLE) for number in range(4)}
    dataset = upload(running, packed(path, members))
    first = submit(running, learn(dataset["id"], output={"model": "faces"}))
    job = succeeded(running, first)
    other = {"architecture": DEEP, "task_config": {"embedding_size": 24, "augmentation": "none"}}
    longer = {"epochs": 30, "batch_size": 16, "learning_rate": 3e-3}
    second = learn(dataset["id"], output={"model": "faces"}, hyperparameters=longer, **other)
    succeeded(running, submit(running, second))
    return {"dataset": dataset, "job": job}


Make = Callable[..., dict[str, Any]]


@pytest.fixture
def make(running: httpx.Client, faces: dict[str, Any], request: pytest.FixtureRequest) -> Make:
    """A gallery of its own, named after the test."""
    name = request.node.name.removeprefix("test_").replace("_", "-")[:60]

    def make(people: int = 0, each: int = 3, first: int = 100, **fields: Any) -> dict[str, Any]:
        made = running.post("/galleries", json={"name": name, "model": "faces:1", **fields})
        assert made.status_code == 201, made.text
        for person in range(first, first + people):
            inputs = [text(face(person, number)) for number in range(each)]
            asked = {"name": f"person {person}", "inputs": inputs}
            enrolled = running.post(f"/galleries/{name}/subjects", json=asked)
            assert enrolled.status_code == 201, enrolled.text
        found: dict[str, Any] = running.get(f"/galleries/{name}").json()
        return found

    return make


def test_upload_train_enrol_identify_verify(running: httpx.Client, faces: dict[str, Any], make: Make) -> None:
    measured = faces["job"]["result"]["metrics"]["validation"]
    assert (measured["subjects"], measured["new_subjects"]) == (10, 10)
    assert measured["auc"] > 0.9, measured
    assert measured["tar_at_far_1"] > 0.8, measured
    answer = running.post("/models/faces:1/predict", json={"inputs": [text(face(0, 1))]}).json()["outputs"][0]
    assert np.linalg.norm(answer["embedding"]) == pytest.approx(1, abs=1e-5)
    same = running.post("/models/faces:1/embed", json={"inputs": [text(face(0, 1))]}).json()["embeddings"][0]
    assert same == pytest.approx(answer["embedding"], abs=1e-5)

    gallery = make(4)
    assert (gallery["model"], gallery["subjects"], gallery["samples"]) == ("faces:1", 4, 12)
    threshold = gallery["threshold"]
    assert (threshold["source"], threshold["split"]) == ("evaluation", "validation")
    assert (threshold["false_accept_rate"], threshold["new_subjects"]) == (0.01, 10)
    points = {point["false_accept_rate"]: point for point in measured["thresholds"]}
    assert threshold["value"] == points[0.01]["threshold"]

    path = f"/galleries/{gallery['name']}"
    inputs = [text(face(101, 50)), text(face(103, 50)), text(face(555, 50)), text(b"no picture")]
    found = running.post(f"{path}/identify", json={"inputs": inputs, "top_k": 2}).json()
    assert [output["candidates"][0]["name"] for output in found["outputs"][:2]] == ["person 101", "person 103"]
    assert [output["known"] for output in found["outputs"][:2]] == [True, True]
    assert found["outputs"][0]["subject"] == found["outputs"][0]["candidates"][0]
    assert len(found["outputs"][0]["candidates"]) == 2
    assert found["outputs"][3] is None
    assert [error["index"] for error in found["errors"]] == [3]
    strict = running.post(f"{path}/identify", json={"inputs": inputs[2:3], "threshold": 1.0}).json()["outputs"][0]
    assert (strict["subject"], strict["known"], len(strict["candidates"])) == (None, False, 4)

    pair = {"inputs": [text(face(101, 50)), text(face(101, 51))]}
    alike = running.post(f"{path}/verify", json=pair).json()
    other = running.post(f"{path}/verify", json={"inputs": [text(face(101, 50)), text(face(102, 51))]}).json()
    assert alike["score"] > other["score"]
    assert (alike["verified"], other["verified"]) == (True, False)
    named = running.post(f"{path}/verify", json={"inputs": pair["inputs"][:1], "subject": "person 101"}).json()
    assert (named["verified"], named["subject"]["name"]) == (True, "person 101")


def test_files_come_as_they_are(running: httpx.Client, make: Make) -> None:
    path = f"/galleries/{make()['name']}"
    raw = {"content": face(100, 0), "headers": {"Content-Type": "image/png"}}
    made = running.post(f"{path}/subjects", params={"name": "Zoë"}, **raw)
    assert made.status_code == 201, made.text
    assert (made.json()["name"], len(made.json()["samples"])) == ("Zoë", 1)
    files = [("file", (f"{number}.png", face(101, number))) for number in range(3)]
    formed = running.post(f"{path}/subjects", data={"name": "李雷", "metadata": '{"team": 3}'}, files=files).json()
    assert (formed["name"], len(formed["samples"]), formed["metadata"]) == ("李雷", 3, {"team": 3})
    samples = f"{path}/subjects/{made.json()['id']}/samples"
    assert running.post(samples, **raw).json() == made.json()  # a file counts once, so that a request can be repeated
    more = {"inputs": [text(face(100, number)) for number in (0, 1, 1)]}
    digests = [one["sha256"] for one in running.post(samples, json=more).json()["samples"]]
    assert len(digests) == len(set(digests)) == 2
    found = running.post(f"{path}/identify", params={"top_k": 1}, **raw).json()["outputs"][0]
    assert found["candidates"] == [{"id": made.json()["id"], "name": "Zoë", "score": pytest.approx(1, abs=1e-5)}]
    verified = running.post(f"{path}/verify", data={"subject": " 李雷 "}, files=files[:1]).json()
    assert verified["score"] == pytest.approx(1, abs=1e-5)
    listed = running.get(f"{path}/subjects", params={"name": " 李雷 "}).json()["data"]
    assert [one["id"] for one in listed] == [formed["id"]]
    assert running.get(f"{path}/subjects/{formed['id']}").json() == listed[0]


def test_a_repeated_enrolment_is_one(running: httpx.Client, make: Make) -> None:
    name = make()["name"]
    asked = {"name": name, "model": "faces:1", "metadata": {"floor": 2}}
    running.delete(f"/galleries/{name}")
    key = {"Idempotency-Key": f"make {name}"}
    made = [running.post("/galleries", json=asked, headers=key) for _ in range(2)]
    assert [answer.status_code for answer in made] == [201, 201]
    assert made[0].json() == made[1].json()
    other = {**asked, "metadata": {"floor": 3}}
    problem(running.post("/galleries", json=other, headers=key), 422, "idempotency_mismatch")

    path = f"/galleries/{name}/subjects"
    key = {"Idempotency-Key": f"enrol into {name}"}
    body = {"name": "Ada", "inputs": [text(face(100, number)) for number in range(2)]}
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: running.post(path, json=body, headers=key), range(6)))
    assert {answer.status_code for answer in answers} == {201}, [answer.text for answer in answers]
    assert len({answer.json()["id"] for answer in answers}) == 1
    problem(running.post(path, json={**body, "name": "Grace"}, headers=key), 422, "idempotency_mismatch")
    problem(running.post(path, json=body), 409, "conflict")
    raw = {"content": face(101, 0), "params": {"name": "Grace"}}
    kind = {"Content-Type": "image/png", "Idempotency-Key": f"a file for {name}"}
    first, second = (running.post(path, **raw, headers=kind) for _ in range(2))
    assert (first.status_code, first.json()) == (201, second.json())
    problem(running.post(path, **{**raw, "content": face(101, 1)}, headers=kind), 422, "idempotency_mismatch")

    more, key = {"inputs": [text(face(100, 7))]}, {"Idempotency-Key": f"more for {name}"}
    samples = f"{path}/{answers[0].json()['id']}/samples"
    first, second = (running.post(samples, json=more, headers=key) for _ in range(2))
    assert len(first.json()["samples"]) == 3
    assert first.json() == second.json()
    running.delete(f"{path}/{answers[0].json()['id']}")
    problem(running.post(samples, json=more, headers=key), 404, "not_found")
    assert running.get(f"/galleries/{name}").json()["subjects"] == 1


def stored(stack: Stack, gallery_id: str) -> tuple[int, int, int]:
    """How many rows of a gallery, of its subjects and of all samples whose subject is there, or is not."""
    database = stack_database(stack)
    try:
        with database.read() as session:
            galleries = select(func.count()).select_from(GalleryRecord).where(GalleryRecord.id == gallery_id)
            subjects = select(func.count()).select_from(SubjectRecord).where(SubjectRecord.gallery_id == gallery_id)
            own = select(SubjectRecord.id).where(SubjectRecord.gallery_id == gallery_id)
            every = select(SubjectRecord.id)
            samples = select(func.count()).select_from(SampleRecord)
            lost = session.scalar(samples.where(SampleRecord.subject_id.not_in(every)))
            count = session.scalar(samples.where(SampleRecord.subject_id.in_(own)))
            return session.scalar(galleries) or 0, session.scalar(subjects) or 0, (count or 0) + (lost or 0)
    finally:
        database.close()


def collect(stack: Stack) -> None:
    database = stack_database(stack)
    try:
        Collector(database, ArtifactStore(stack.data_dir / "artifacts"), 0).collect()
    finally:
        database.close()


def test_what_is_deleted_is_gone(embedded: Stack, running: httpx.Client, make: Make) -> None:
    gallery = make(3, first=300)
    path = f"/galleries/{gallery['name']}"
    subjects = {one["name"]: one for one in running.get(f"{path}/subjects").json()["data"]}
    gone = subjects["person 301"]
    files = [embedded.data_dir / "artifacts" / one["sha256"][:2] / one["sha256"] for one in gone["samples"]]
    kept = subjects["person 302"]["samples"][0]["sha256"]
    assert all(file.exists() for file in files)
    assert running.delete(f"{path}/subjects/{gone['id']}").status_code == 204
    assert stored(embedded, gallery["id"]) == (1, 2, 6)
    collect(embedded)
    assert not any(file.exists() for file in files)
    assert (embedded.data_dir / "artifacts" / kept[:2] / kept).exists()
    problem(running.get(f"{path}/subjects/{gone['id']}"), 404, "not_found")
    probe = {"inputs": [text(face(301, 0))]}
    (answer,) = running.post(f"{path}/identify", json=probe).json()["outputs"]
    assert {one["name"] for one in answer["candidates"]} == {"person 300", "person 302"}
    problem(running.post(f"{path}/verify", json={**probe, "subject": "person 301"}), 404, "not_found")
    assert running.delete(path).status_code == 204
    assert stored(embedded, gallery["id"]) == (0, 0, 0)
    problem(running.get(path), 404, "not_found")


def move(running: httpx.Client, gallery: str, model: str, **fields: Any) -> dict[str, Any]:
    """Submit a move and return its job once it has ended."""
    asked = running.post(f"/galleries/{gallery}/move", json={"model": model, **fields})
    assert asked.status_code == 202, asked.text
    assert asked.headers["Location"] == f"/api/v1/jobs/{asked.json()['id']}"
    return finished(running, asked.json()["id"])


def test_moving_embeds_everybody_anew(running: httpx.Client, make: Make) -> None:
    gallery = make(4)
    path = f"/galleries/{gallery['name']}"
    probe = {"inputs": [text(face(102, 9))]}
    before = running.post(f"{path}/identify", json=probe).json()
    job = move(running, gallery["name"], "faces")
    assert (job["status"], job["result"]["ref"], job["result"]["samples"]) == ("succeeded", "faces:2", 12), job
    assert (job["progress"]["phase"], job["progress"]["rows"], job["progress"]["fraction"]) == ("embedding", 12, 1)
    moved = running.patch(path, json={"metadata": {"why": "wider"}}).json()
    assert moved["move"] is None
    assert (moved["model"], moved["samples"], moved["metadata"]) == ("faces:2", 12, {"why": "wider"})
    assert moved["threshold"]["value"] != gallery["threshold"]["value"]
    after = running.post(f"{path}/identify", json=probe).json()
    assert (before["model"]["version"], after["model"]["version"]) == (1, 2)
    assert after["outputs"][0]["candidates"][0]["name"] == "person 102"
    # What is enrolled now is what was enrolled then, by the new version: a file finds itself.
    again = running.post(f"{path}/identify", json={"inputs": [text(face(103, 1))]}).json()["outputs"][0]
    assert again["candidates"][0] == {
        **again["candidates"][0],
        "name": "person 103",
        "score": pytest.approx(1, abs=1e-5),
    }
    # A number that was given is of the scores of the version before.
    assert running.patch(path, json={"threshold": 0.5}).json()["threshold"]["source"] == "given"
    refused = problem(running.delete("/models/faces/versions/2"), 409, "conflict")
    assert f'the gallery "{gallery["name"]}"' in refused["detail"]
    assert move(running, gallery["name"], "faces:1")["status"] == "succeeded"
    assert running.get(path).json()["threshold"] == gallery["threshold"]
    assert (
        move(running, gallery["name"], "faces:2", threshold="enrolled", false_accept_rate=0.1)["status"] == "succeeded"
    )
    chosen = running.get(path).json()["threshold"]
    assert (chosen["source"], chosen["pairs"]) == ("enrolled", {"same": 12, "different": 54})


def test_moving_says_whose_file_cannot_be_read(embedded: Stack, running: httpx.Client, make: Make) -> None:
    gallery = make(2, each=1, first=700)
    path = f"/galleries/{gallery['name']}"
    subject = running.get(f"{path}/subjects", params={"name": "person 701"}).json()["data"][0]
    sha256 = subject["samples"][0]["sha256"]
    file = embedded.data_dir / "artifacts" / sha256[:2] / sha256
    content = file.read_bytes()
    file.chmod(0o600)
    file.write_bytes(content[:40])
    try:
        job = move(running, gallery["name"], "faces:2")
    finally:
        file.write_bytes(content)
    assert (job["status"], job["attempt"], job["error"]["code"]) == ("failed", 1, "invalid_input"), job
    for named in ("faces:2", subject["samples"][0]["id"], subject["id"]):
        assert named in job["error"]["message"]
    assert "person 701" not in str(job)  # which would outlive the subject
    assert "Input" not in job["error"]["message"]
    assert running.get(path).json()["model"] == "faces:1"
    again = running.post(f"/jobs/{job['id']}/retry", json={})
    assert succeeded(running, again.json()["id"])["result"]["ref"] == "faces:2"


def test_moving_keeps_to_the_modality(running: httpx.Client, make: Make, tmp_path: Path) -> None:
    tone = 5_000 * np.sin(np.arange(800) / np.arange(1, 9)[:, None])
    members = {f"{number % 2}/{number}.wav": wav(tone[number][:, None]) for number in range(8)}
    voices = {"architecture": {"name": "speaker-net", "size": "tiny"}, "task": "speaker-embedding", "split": {}}
    few = {"hyperparameters": {"max_steps": 1, "batch_size": 4}, "task_config": {}, "output": {"model": "two-voices"}}
    dataset = upload(running, packed(tmp_path / "voices.zip", members))
    succeeded(running, submit(running, {**learn(dataset["id"]), **voices, **few}))
    refused = running.post(f"/galleries/{make(1, each=1)['name']}/move", json={"model": "two-voices"})
    assert "reads audio" in problem(refused, 422, "invalid_request")["detail"]


def test_a_threshold_says_where_it_comes_from(running: httpx.Client, make: Make) -> None:
    gallery = make(6, threshold="enrolled", false_accept_rate=0.05)
    path = f"/galleries/{gallery['name']}"
    first = gallery["threshold"]
    assert (first["source"], first["pairs"]) == ("enrolled", {"same": 18, "different": 135})
    given = running.patch(path, json={"threshold": 0.5}).json()["threshold"]
    assert (given["source"], given["value"], given["false_accept_rate"]) == ("given", 0.5, None)
    back = running.patch(path, json={"threshold": "enrolled"}).json()["threshold"]
    assert back == first
    subject = running.get(f"{path}/subjects").json()["data"][0]["id"]
    running.delete(f"{path}/subjects/{subject}")
    assert running.get(path).json()["threshold"]["pairs"] == {"same": 15, "different": 90}
    refused = running.patch(path, json={"threshold": "evaluation", "false_accept_rate": 1e-6})
    assert "Set threshold to" in problem(refused, 422, "no_validation_pairs")["hint"]


def test_an_empty_gallery_knows_nobody(running: httpx.Client, make: Make) -> None:
    path = f"/galleries/{make(threshold='enrolled')['name']}"
    probe = {"inputs": [text(face(1, 1))]}
    assert running.post(f"{path}/identify", json=probe).json()["outputs"] == [
        {"subject": None, "known": None, "candidates": []}  # there is no pair yet to choose a threshold by
    ]
    running.patch(path, json={"threshold": 0.2})
    assert running.post(f"{path}/identify", json=probe).json()["outputs"] == [
        {"subject": None, "known": False, "candidates": []}
    ]


def test_what_a_gallery_refuses(running: httpx.Client, rows: str, make: Make) -> None:
    gallery = make(1, each=1)
    path = f"/galleries/{gallery['name']}"
    again = running.post("/galleries", json={"name": gallery["name"], "model": "faces"})
    assert "already" in problem(again, 409, "conflict")["detail"]
    problem(running.post("/galleries", json={"name": "none", "model": "absent"}), 404, "not_found")
    succeeded(running, submit(running, classify(rows, output={"model": "rows-only"})))
    wrong = running.post("/galleries", json={"name": "wrong", "model": "rows-only"})
    assert "image-embedding" in problem(wrong, 422, "no_embedder")["hint"]
    problem(running.post(f"{path}/move", json={"model": "rows-only"}), 422, "no_embedder")
    problem(running.post(f"{path}/move", json={"model": "faces:9"}), 404, "not_found")
    given = {"model": "faces:2", "threshold": "evaluation", "false_accept_rate": 1e-6}
    problem(running.post(f"{path}/move", json=given), 422, "no_validation_pairs")
    problem(running.patch(path, json={"model": "faces:2"}), 422, "invalid_request")
    known = running.get(f"{path}/subjects").json()["data"][0]
    twice = problem(
        running.post(f"{path}/subjects", json={"name": " person 100 ", "inputs": [text(face(100, 1))]}), 409, "conflict"
    )
    assert known["id"] in twice["detail"]
    for asked, status in (
        ({"name": "x", "inputs": []}, 422),
        ({"name": "  ", "inputs": [text(face(1, 1))]}, 422),
        ({"name": "x\0", "inputs": [text(face(1, 1))]}, 422),
        ({"inputs": [text(face(1, 1))]}, 422),
        ({"name": "x", "inputs": [text(b"noise" * 99)]}, 400),
        ({"name": "x", "inputs": [text(face(1, 1)), text(png()[:40])]}, 400),
        ({"name": "x", "inputs": ["https://example.com/face.png"]}, 422),
        ({"name": "x", "inputs": [text(face(1, 1))], "age": 3}, 422),
    ):
        refused = running.post(f"{path}/subjects", json=asked)
        assert refused.status_code == status, (asked, refused.text)
    assert running.get(path).json()["samples"] == 1  # nothing of all that was kept
    problem(running.post(f"{path}/subjects/sub_none/samples", json={"inputs": [text(face(1, 1))]}), 404, "not_found")
    empty = running.post(f"{path}/subjects", params={"name": "x"}, content=b"", headers={"Content-Type": "image/png"})
    problem(empty, 400, "invalid_input")
    for content in (b"", b" \n\n"):
        lines: dict[str, Any] = {"content": content, "headers": {"Content-Type": "application/jsonl"}}
        nothing = problem(running.post(f"{path}/subjects", params={"name": "x"}, **lines), 422, "invalid_request")
        assert nothing["param"] == "inputs"
        problem(running.post(f"{path}/identify", **lines), 422, "invalid_request")
    for metadata in ("{", "[" * 100_000, "9" * 5_000, '{"a": NaN}', "[]"):
        fields = {"name": "x", "metadata": metadata}
        formed = running.post(f"{path}/subjects", data=fields, files={"file": ("1.png", face(1, 1))})
        problem(formed, 422, "invalid_request")
    form = running.post(f"{path}/identify", files={"top_k": (None, "3")})
    assert "no file" in problem(form, 422, "invalid_request")["detail"]
    odd = running.post(f"{path}/verify", json={"inputs": [text(face(1, 1))]})
    assert "two files" in problem(odd, 422, "invalid_request")["detail"]
    three = [("file", (f"{number}.png", face(1, number))) for number in range(3)]
    problem(running.post(f"{path}/verify", files=three), 422, "invalid_request")
    problem(running.post(f"{path}/identify", json={"inputs": ["x"], "top_k": 0}), 422, "invalid_request")
    sound = running.post(f"{path}/identify", content=b"x", headers={"Content-Type": "audio/wav"})
    problem(sound, 415, "unsupported_media_type")
