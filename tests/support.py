"""What many tests do through the public door: upload a file, run a job, wait for something, judge a problem."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import httpx
from servers import REPOSITORY, Stack

from store import keys
from store.database import Database

DATA = REPOSITORY / "anneal" / "data"
TRAIN = DATA / "breast_cancer_train.csv"
# The real data are not in the repository: they are looked for beside it, or beside a folder that it is in.
_PLACES = [parent / "shared" / "data" for parent in REPOSITORY.parents]
SHARED = next((place for place in _PLACES if place.is_dir()), _PLACES[0])
T = TypeVar("T")
# Nothing of the server's inside may be seen from outside.
INSIDE = ("Traceback", 'File "/', "sqlalchemy", "sqlite3", "psycopg", "site-packages", "/home/", "/tmp/")


def upload(
    api: httpx.Client, content: Path | str | bytes, filename: str = "table.csv", **fields: str
) -> dict[str, Any]:
    """Upload a file and return its dataset once it is ready or invalid."""
    if isinstance(content, Path):
        filename, content = content.name, content.read_bytes()
    created = api.post("/datasets", files={"file": (filename, content)}, data=fields)
    assert created.status_code == 201, created.text
    dataset: dict[str, Any] = api.get(f"/datasets/{created.json()['id']}", params={"wait": 60}).json()
    assert dataset["status"] in ("ready", "invalid"), dataset
    return dataset


def classify(dataset: str, **spec: Any) -> dict[str, Any]:
    """Return the body of a short classification job on the breast cancer rows; `spec` overrides."""
    return {
        "kind": "finetune",
        "task": "tabular-classification",
        "dataset": dataset,
        "columns": {"target": "diagnosis"},
        "hyperparameters": {"epochs": 2},
        **spec,
    }


def long_job(rows: str) -> dict[str, Any]:
    """Return the body of a job of some seconds with the same result every time."""
    return classify(rows, hyperparameters={"epochs": 1000, "batch_size": 32}, seed=3, output={"model": "long"})


def submit(api: httpx.Client, body: dict[str, Any]) -> str:
    """Submit a job and return its id."""
    created = api.post("/jobs", json=body)
    assert created.status_code == 202, created.text
    return str(created.json()["id"])


class Patience:
    """How long something is waited for, looking at it now and then.

    Between two looks no more is counted than they can be apart: the machine stood still then, with all that is on it.
    """

    def __init__(self, timeout_s: float, look_s: float = 5.0) -> None:
        self._left_s = timeout_s
        self._look_s = look_s
        self._looked_at = time.monotonic()

    def is_over(self) -> bool:
        """Tell after a look whether there is to be no other."""
        now = time.monotonic()
        self._left_s -= min(now - self._looked_at, self._look_s)
        self._looked_at = now
        return self._left_s <= 0


def finished(api: httpx.Client, job_id: str, timeout_s: float = 90) -> dict[str, Any]:
    """Return the job once it has ended."""
    patience = Patience(timeout_s, look_s=35)
    while True:
        job: dict[str, Any] = api.get(f"/jobs/{job_id}", params={"wait": 30}).json()
        if job["status"] in ("succeeded", "failed", "cancelled"):
            return job
        assert not patience.is_over(), job


def succeeded(api: httpx.Client, job_id: str, timeout_s: float = 90) -> dict[str, Any]:
    """Return the job once it has succeeded."""
    job = finished(api, job_id, timeout_s)
    assert job["status"] == "succeeded", job
    return job


def wait_until(look: Callable[[], T], timeout_s: float = 30, every_s: float = 0.05) -> T:
    """Return the first true value that `look` gives."""
    patience = Patience(timeout_s)
    while not (found := look()):
        assert not patience.is_over(), f"{look} stayed {found!r} for {timeout_s} s"
        time.sleep(every_s)
    return found


def wait_for_state(api: httpx.Client, job_id: str, *states: str, timeout_s: float = 30) -> dict[str, Any]:
    """Return the job once it is in one of the states."""

    def look() -> dict[str, Any] | None:
        job: dict[str, Any] = api.get(f"/jobs/{job_id}").json()
        return job if job["status"] in states else None

    return wait_until(look, timeout_s)


def wait_for_step(api: httpx.Client, job_id: str, step: int = 1, timeout_s: float = 30) -> dict[str, Any]:
    """Return the job once its training has passed a step."""

    def look() -> dict[str, Any] | None:
        job: dict[str, Any] = api.get(f"/jobs/{job_id}").json()
        assert job["status"] in ("queued", "running"), job
        return job if ((job["progress"] or {}).get("step") or 0) >= step else None

    return wait_until(look, timeout_s)


def weights_digest(api: httpx.Client, job: dict[str, Any]) -> str:
    """Return the sha256 of the weights that a succeeded job made."""
    version = api.get(f"/models/{job['result']['model']}/versions/{job['result']['version']}").json()
    return str({file["path"]: file["sha256"] for file in version["files"]}["model.safetensors"])


def problem(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """Return the response's problem document after checking that it is a whole and discreet one."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert body["code"] == code, body
    assert body["status"] == status
    assert body["type"] == f"urn:anneal:problem:{code}"
    assert body["title"]
    assert body["detail"]
    assert body["instance"] == response.request.url.path
    assert body["request_id"] == response.headers["x-request-id"]
    assert isinstance(body["retryable"], bool)
    assert isinstance(body["errors"], list)
    assert not [word for word in INSIDE if word in response.text], response.text
    secret = response.request.headers.get("Authorization", "").partition(".")[2]
    assert len(secret) < 20 or secret not in response.text
    return body


def stack_database(stack: Stack) -> Database:
    """Return the running product's database; close it after use."""
    return Database(stack.environment.get("ANNEAL_DATABASE_URL") or f"sqlite:///{stack.data_dir / 'anneal.db'}")


def new_key(stack: Stack, **options: Any) -> str:
    """Make an API key in the running product's database."""
    database = stack_database(stack)
    try:
        with database.write() as session:
            return keys.create(session, name="test", **options)[1]
    finally:
        database.close()
