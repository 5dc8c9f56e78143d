"""Pictures of how good a model is, as files of its version: listed, looked at, saved, and harmless."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import httpx
import pytest
from media_files import packed
from servers import Stack
from support import problem, submit, succeeded, upload
from test_images_api import TINY, stripes

from anneal.client import Client

# Labels and file names as somebody would write them who wants a page to run them.
LABELS = ("<script>alert(1)</script>", '"><img src=x onerror=alert(2)>')
SVG = "{http://www.w3.org/2000/svg}"
CURVES = {"confusion-matrix", "precision-recall", "roc"}


@pytest.fixture(scope="module")
def striped(running: httpx.Client, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The version of a model that learned next to nothing, so that it makes mistakes."""
    names = [f"<b>{number}'&.png" for number in range(40)]
    rows = [f'"{name}","{LABELS[number % 2].replace(chr(34), chr(34) * 2)}"' for number, name in enumerate(names)]
    members = {name: stripes(2 * number, number % 2 == 1) for number, name in enumerate(names)}
    archive = packed(
        tmp_path_factory.mktemp("evil") / "evil.zip", {"manifest.csv": "\n".join(["file,kind", *rows]), **members}
    )
    dataset = upload(running, archive)
    assert dataset["status"] == "ready", dataset
    job = succeeded(running, submit(running, {
        "kind": "finetune", "task": "image-classification", "columns": {"target": "kind"}, "dataset": dataset["id"],
        "architecture": TINY, "hyperparameters": {"max_steps": 1, "learning_rate": 1e-6},
        "split": {"validation": 0.2, "test": 0.5}, "output": {"model": "evil"},
    }))  # fmt: skip
    assert job["warnings"] == []
    found: dict[str, Any] = running.get("/models/evil/versions/1").json()
    return found


def pictures(running: httpx.Client, version: dict[str, Any]) -> dict[str, str]:
    return {name: running.get(address.removeprefix("/api/v1")).text for name, address in version["pictures"].items()}


def test_a_version_lists_its_pictures(running: httpx.Client, striped: dict[str, Any]) -> None:
    assert set(striped["pictures"]) == {*CURVES, "mistakes"}
    files = {file["path"]: file for file in running.get("/models/evil/versions/1/files").json()["data"]}
    for name, address in striped["pictures"].items():
        response = running.get(address.removeprefix("/api/v1"))
        assert response.status_code == 200
        assert response.headers["content-type"] == "image/svg+xml"
        assert len(response.content) == files[f"pictures/{name}.svg"]["bytes"] < 1 << 20
        assert "20 test rows" in response.text
        part = running.get(address.removeprefix("/api/v1"), headers={"Range": "bytes=0-3"})
        assert (part.status_code, part.content) == (206, b"<svg")
    trained = running.get("/models/evil/versions/1").json()["metrics"]["test"]["confusion_matrix"]["counts"]
    right = sum(trained[place][place] for place in range(2))
    assert f"{right} of 20 test rows right" in pictures(running, striped)["confusion-matrix"]
    problem(running.get("/models/evil/versions/1/files/pictures/none.svg"), 404, "not_found")
    problem(running.get("/models/evil/versions/1/files/pictures%2F..%2Fconfig.json"), 404, "not_found")


def test_what_is_written_in_a_picture_cannot_run(running: httpx.Client, striped: dict[str, Any]) -> None:
    for name, address in striped["pictures"].items():
        response = running.get(address.removeprefix("/api/v1"))
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["content-security-policy"] == "default-src 'none'; img-src data:; sandbox"
        assert response.headers["content-disposition"].startswith("inline")
        tags = {element.tag.removeprefix(SVG) for element in ElementTree.fromstring(response.text).iter()}
        assert tags <= {"svg", "title", "rect", "polyline", "text", "image"}, name
    found = pictures(running, striped)
    words = "".join(ElementTree.fromstring(found["confusion-matrix"]).itertext())
    assert all(label in words for label in LABELS)
    assert "<b>" in "".join(ElementTree.fromstring(found["mistakes"]).itertext())
    weights = running.get("/models/evil/versions/1/files/model.safetensors")
    assert weights.headers["content-type"] == "application/octet-stream"
    assert weights.headers["content-disposition"].startswith("attachment")


def test_pictures_are_saved_by_the_client_and_the_command_line(
    embedded: Stack, striped: dict[str, Any], tmp_path: Path
) -> None:
    with Client(embedded.url, embedded.key) as client:
        saved = client.models.pictures("evil", tmp_path / "new" / "folder")
    assert sorted(path.name for path in saved) == sorted(f"evil-1-{name}.svg" for name in striped["pictures"])
    assert all(path.read_text().startswith("<svg") for path in saved)
    environment = {**os.environ, "ANNEAL_URL": embedded.url, "ANNEAL_API_KEY": embedded.key}
    command = [sys.executable, "-m", "anneal", "models", "pictures", "evil:1", "--output", str(tmp_path)]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert len(list(tmp_path.glob("evil-1-*.svg"))) == 4
    assert "evil-1-confusion-matrix.svg" in ran.stdout + ran.stderr


def test_a_model_is_whole_without_its_pictures(running: httpx.Client, striped: dict[str, Any]) -> None:
    content = running.get("/models/evil/versions/1/download").content
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert "pictures/mistakes.svg" in archive.namelist()
    form = {"files": {"file": ("evil.zip", content)}, "data": {"model": "evil-again"}}
    succeeded(running, running.post("/models", **form).json()["id"])
    assert running.get("/models/evil-again/versions/1").json()["pictures"] == {}
    inputs = {"inputs": [running.get("/models/evil/schema").json()["example"]]}
    first, again = (running.post(f"/models/{name}/predict", json=inputs).json() for name in ("evil", "evil-again"))
    assert first["outputs"] == again["outputs"]


def test_tables_have_a_matrix_and_curves(running: httpx.Client, trained: dict[str, Any]) -> None:
    version = running.get("/models/shared/versions/1").json()
    assert set(version["pictures"]) == CURVES
    assert "malignant" in pictures(running, version)["roc"]


def test_others_cannot_see_them(running: httpx.Client, embedded: Stack, striped: dict[str, Any]) -> None:
    address = f"{embedded.url}{striped['pictures']['mistakes']}"
    assert httpx.get(address).status_code == 401
    predicts = running.post("/keys", json={"name": "p", "scopes": ["predict"]}).json()["key"]
    assert httpx.get(address, headers={"Authorization": f"Bearer {predicts}"}).status_code == 403
