"""Every route of the OpenAPI document, and those beside them: closed without a key, a scope, and to other projects."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from media_files import png
from registered import register_faces
from routes import BODIES, CLOSED, FOREIGN, HOOK, OPEN, ROUTES, WITH_ID, Route, name, nameless, refused, without
from servers import Stack
from support import classify, new_key, problem, stack_database, submit, succeeded, upload, wait_for_state

from store import keys, webhooks


@pytest.fixture(scope="module")
def bare(embedded: Stack) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=embedded.url, timeout=30) as client:
        yield client


@pytest.fixture(scope="module")
def limited(embedded: Stack) -> dict[str, str]:
    """For each scope a key that has all the others."""
    return {scope: new_key(embedded, scopes=[one for one in keys.SCOPES if one != scope]) for scope in keys.SCOPES}


@pytest.fixture(scope="module")
def stranger(embedded: Stack) -> str:
    """A key of another project with every scope."""
    return new_key(embedded, project="other")


@pytest.fixture(scope="module")
def foreigner(embedded: Stack, stranger: str) -> Iterator[httpx.Client]:
    with embedded.client(headers={"Authorization": f"Bearer {stranger}"}) as client:
        yield client


@pytest.fixture(scope="module")
def theirs(foreigner: httpx.Client) -> str:
    """The id of the other project's dataset, from which its model "own" has learned."""
    dataset_id = str(upload(foreigner, "a,label\n" + "1,x\n2,y\n" * 20)["id"])
    body = classify(dataset_id, columns={"target": "label"}, hyperparameters={"epochs": 1}, output={"model": "own"})
    succeeded(foreigner, submit(foreigner, body))
    return dataset_id


@pytest.fixture(scope="module")
def webhook(embedded: Stack) -> Iterator[dict[str, str]]:
    """A webhook of the first project with a delivery; disabled, since nothing is to leave this machine."""
    database = stack_database(embedded)
    with database.write() as session:
        made = webhooks.create(session, keys.DEFAULT_PROJECT, HOOK["url"], HOOK["events"], None)
        made.enabled = False
        session.flush()
        known = {"webhook_id": made.id, "delivery_id": webhooks.enqueue(session, made.id, "webhook.test", {}).id}
    yield known
    with database.write() as session:
        webhooks.remove(session, webhooks.get(session, keys.DEFAULT_PROJECT, known["webhook_id"]))
    database.close()


@pytest.fixture(scope="module")
def gallery(running: httpx.Client, embedded: Stack) -> dict[str, str]:
    """A gallery that knows somebody."""
    register_faces(embedded, "strangers")
    made = running.post("/galleries", json={"name": "doormen", "model": "strangers", "threshold": 0.5})
    assert made.status_code == 201, made.text
    somebody = {"name": "somebody", "inputs": [base64.b64encode(png()).decode()]}
    enrolled = running.post("/galleries/doormen/subjects", json=somebody)
    return {"gallery": "doormen", "subject_id": enrolled.json()["id"]}


@pytest.fixture(scope="module")
def ids(
    running: httpx.Client,
    embedded: Stack,
    rows: str,
    trained: dict[str, Any],
    webhook: dict[str, str],
    gallery: dict[str, str],
) -> dict[str, str]:
    """What there is in the first project."""
    first = running.get("/keys").json()["data"][0]["id"]
    example = running.get("/models/shared/schema").json()["example"]
    request = {
        "custom_id": "1",
        "method": "POST",
        "url": "/v1/embeddings",
        "body": {"model": "shared", "input": [example]},
    }
    file = running.post(
        f"{embedded.url}/v1/files",
        files={"file": ("b.jsonl", json.dumps(request).encode())},
        data={"purpose": "batch"},
    ).json()["id"]
    batch = {**BODIES["post", "/v1/batches"]["json"], "input_file_id": file}
    asked = {"json": {"inputs": [example]}, "headers": {"Prefer": "respond-async"}}
    return {
        **webhook,
        "file_id": file,
        "batch_id": running.post(f"{embedded.url}/v1/batches", json=batch).json()["id"],
        "prediction_id": running.post("/models/shared/predict", **asked).json()["id"],
        "v1_upload_id": running.post(f"{embedded.url}/v1/uploads", **BODIES["post", "/v1/uploads"]).json()["id"],
        "dataset_id": rows,
        "upload_id": running.post("/uploads", json={"filename": "t.csv", "bytes": 1}).json()["id"],
        "job_id": trained["id"],
        "checkpoint_id": running.get(f"/jobs/{trained['id']}/checkpoints").json()["data"][0]["id"],
        "name": "shared",
        "number": "1",
        "version": "1",
        "ref": "shared",
        "alias": "production",
        "path": "config.json",
        "key_id": first,
        **gallery,
    }


def test_the_document_has_the_routes() -> None:
    assert len(CLOSED) > 30
    assert len(WITH_ID) > 20
    assert not [
        route
        for route in ROUTES
        if not route.path.startswith(("/api/v1", *FOREIGN)) and route.path not in OPEN | {"/metrics"}
    ]


@pytest.mark.parametrize("route", CLOSED, ids=name)
def test_no_key(bare: httpx.Client, route: Route) -> None:
    refused(route.ask(bare), route, 401, "missing_key")


@pytest.mark.parametrize("route", CLOSED, ids=name)
def test_no_scope(bare: httpx.Client, limited: dict[str, str], ids: dict[str, str], route: Route) -> None:
    body = refused(route.ask(bare, ids, limited[route.scope]), route, 403, "missing_scope")
    assert f'"{route.scope}"' in body["detail"]


@pytest.mark.parametrize("route", WITH_ID, ids=name)
def test_another_project(
    bare: httpx.Client, running: httpx.Client, stranger: str, ids: dict[str, str], route: Route
) -> None:
    foreign = refused(route.ask(bare, ids, stranger), route, 404, "not_found")
    missing = refused(route.ask(bare, without(ids), stranger), route, 404, "not_found")
    # A foreign id answers like an absent one, but for the id itself.
    for field in ("detail", "hint"):
        assert nameless(str(foreign[field]), ids) == str(missing[field])
    assert running.get(f"/jobs/{ids['job_id']}").json()["status"] == "succeeded"


@pytest.mark.parametrize("route", [route for route in WITH_ID if route.method == "get"], ids=name)
def test_what_is_refused_to_others_is_there(
    bare: httpx.Client, embedded: Stack, ids: dict[str, str], route: Route
) -> None:
    """Else a foreign id would answer like an absent one because it is one."""
    found = route.ask(bare, ids, embedded.key)
    if found.status_code == 404:  # what it has none of is something else
        missing = refused(route.ask(bare, without(ids), embedded.key), route, 404, "not_found")
        assert nameless(refused(found, route, 404, "not_found")["detail"], ids) != missing["detail"]


def test_an_upload_that_others_cannot_complete_is_there(running: httpx.Client, ids: dict[str, str]) -> None:
    path = f"{running.base_url.copy_with(path='/v1')}/uploads/{ids['v1_upload_id']}/parts"
    assert running.post(path, files={"data": ("part", b"x")}).status_code == 200


@pytest.mark.parametrize("route", [route for route in WITH_ID if "{file_id}" in route.path], ids=name)
def test_a_dataset_of_another_project_as_a_file(
    bare: httpx.Client, running: httpx.Client, stranger: str, ids: dict[str, str], route: Route
) -> None:
    foreign = refused(route.ask(bare, {"file_id": ids["dataset_id"]}, stranger), route, 404, "not_found")
    missing = refused(route.ask(bare, {"file_id": "ds_0"}, stranger), route, 404, "not_found")
    assert foreign["detail"].replace(ids["dataset_id"], "ds_0") == missing["detail"]
    assert running.get(f"/datasets/{ids['dataset_id']}").status_code == 200


@pytest.mark.parametrize(
    ("path", "kind", "body"),
    [
        ("/v1/embeddings", "ref", {"model": "ID", "input": "x"}),
        ("/v1/fine_tuning/jobs", "dataset_id", {"model": "mlp", "training_file": "ID"}),
        ("/v1/fine_tuning/jobs", "dataset_id", {"model": "mlp", "training_file": "THEIRS", "validation_file": "ID"}),
        ("/v1/fine_tuning/jobs", "ref", {"model": "ID", "training_file": "THEIRS"}),
        ("/v1/batches", "file_id", {**BODIES["post", "/v1/batches"]["json"], "input_file_id": "ID"}),
        ("/v1/uploads/UPLOAD/complete", "part_id", {"part_ids": ["ID"]}),
        ("/api/v1/models/own/predict-dataset", "dataset_id", {"dataset": "ID"}),
    ],
)
def test_an_id_of_another_project_in_a_body(
    running: httpx.Client, foreigner: httpx.Client, theirs: str, ids: dict[str, str], path: str, kind: str, body: Any
) -> None:
    uploads = foreigner.base_url.copy_with(path="/v1/uploads")
    answers = []
    if kind == "part_id":
        part = running.post(f"{uploads}/{ids['v1_upload_id']}/parts", files={"data": ("part", b"x")}).json()["id"]
        path = path.replace("UPLOAD", foreigner.post(uploads, **BODIES["post", "/v1/uploads"]).json()["id"])
    else:
        part = ids[kind]
    for value in (part, "absent"):
        sent = json.loads(json.dumps(body).replace("ID", value).replace("THEIRS", theirs))
        answer = foreigner.post(foreigner.base_url.copy_with(path=path), json=sent)
        answers.append(refused(answer, Route("post", path), 404, "not_found"))
    foreign, missing = ((answer["detail"], answer["hint"]) for answer in answers)
    assert [str(said).replace(f'"{part}"', '"absent"') for said in foreign] == [str(said) for said in missing]


def test_a_batch_asks_only_ones_own_models(running: httpx.Client, foreigner: httpx.Client, ids: dict[str, str]) -> None:
    batches = foreigner.base_url.copy_with(path="/v1/batches")
    content = running.get(foreigner.base_url.copy_with(path=f"/v1/files/{ids['file_id']}/content")).text
    said = []
    for ref in ("shared", "absent"):
        file = foreigner.post(
            foreigner.base_url.copy_with(path="/v1/files"),
            files={"file": ("b.jsonl", content.replace('"shared"', f'"{ref}"').encode())},
            data={"purpose": "batch"},
        ).json()["id"]
        answer = foreigner.post(batches, json={**BODIES["post", "/v1/batches"]["json"], "input_file_id": file})
        said.append(refused(answer, Route("post", "/v1/batches"), 404, "not_found")["detail"])
    assert said[0].replace('"shared"', '"absent"') == said[1]


def test_lists_show_nothing_of_another_project(bare: httpx.Client, embedded: Stack, ids: dict[str, str]) -> None:
    key = {"Authorization": f"Bearer {new_key(embedded, project='empty')}"}
    for path in ("datasets", "jobs", "models", "uploads", "webhooks", "galleries"):
        answer = bare.get(f"/api/v1/{path}", headers=key).json()
        assert answer == {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}
    for path in ("files", "fine_tuning/jobs", "batches", "models"):
        assert bare.get(f"/v1/{path}", headers=key).json()["data"] == []
    (only,) = bare.get("/api/v1/keys", headers=key).json()["data"]
    assert only["project"] == "empty"


def test_another_project_uses_nothing_of_ours(
    bare: httpx.Client, running: httpx.Client, stranger: str, ids: dict[str, str]
) -> None:
    key = {"Authorization": f"Bearer {stranger}"}
    checkpoint = running.get(f"/jobs/{ids['job_id']}/checkpoints").json()["data"][0]["id"]
    own = bare.post("/api/v1/datasets", headers=key, files={"file": ("t.csv", b"a,label\n" + b"1,x\n2,y\n" * 20)})
    dataset = bare.get(own.json()["urls"]["self"], params={"wait": 30}, headers=key).json()
    assert dataset["status"] == "ready"

    def post(**changes: Any) -> httpx.Response:
        body = classify(dataset["id"], columns={"target": "label"}) | changes
        return bare.post("/api/v1/jobs", headers=key, json=body)

    problem(post(dataset=ids["dataset_id"]), 404, "not_found")
    problem(post(base_model="shared"), 404, "not_found")
    foreign = problem(post(continue_from=checkpoint), 422, "unknown_name")
    absent = problem(post(continue_from="ck_0"), 422, "unknown_name")
    assert foreign["detail"].replace(checkpoint, "ck_0") == absent["detail"]
    assert foreign["hint"] == absent["hint"]


def test_the_queue_shows_only_ones_own(bare: httpx.Client, running: httpx.Client, stranger: str, rows: str) -> None:
    job_id = submit(running, classify(rows, hyperparameters={"epochs": 100_000}))
    wait_for_state(running, job_id, "running")
    try:
        assert job_id in [job["id"] for job in running.get("/queue").json()["running"]]
        answer = bare.get("/api/v1/queue", headers={"Authorization": f"Bearer {stranger}"}).json()
        assert (answer["running"], answer["queued"], answer["queued_total"]) == ([], [], 0)
        # That a worker is busy is no secret; with what, is.
        (worker,) = (worker for worker in answer["workers"] if worker["queues"] == ["train"])
        assert (worker["busy"], worker["job_id"]) == (True, None)
    finally:
        running.post(f"/jobs/{job_id}/cancel")
        wait_for_state(running, job_id, "cancelled")


def test_open_routes_say_little(bare: httpx.Client) -> None:
    assert bare.get("/livez").json() == {"status": "ok"}
    checks = bare.get("/readyz").json()
    assert checks.pop("process") > 0
    assert checks == {"status": "ok", "checks": {"database": "ok", "migrations": "ok", "broker": "ok"}}
    assert bare.get("/openapi.json").json()["info"]["title"] == "Anneal"


def test_metrics_count_jobs(embedded: Stack, bare: httpx.Client) -> None:
    response = bare.get("/metrics", headers={"Authorization": f"Bearer {embedded.key}"})
    assert response.status_code == 200
    assert "anneal_jobs" in response.text


def test_a_made_key_works_within_its_scopes(running: httpx.Client, bare: httpx.Client) -> None:
    made = running.post("/keys", json={"name": "reader", "scopes": ["models"], "expires_at": "2999-01-01T00:00:00Z"})
    assert made.status_code == 201
    body = made.json()
    assert body["expires_at"] == "2999-01-01T00:00:00.000Z"
    headers = {"Authorization": f"Bearer {body['key']}"}
    assert bare.get("/api/v1/models", headers=headers).status_code == 200
    assert bare.get("/api/v1/jobs", headers=headers).status_code == 403
    listed = {key["id"]: key for key in running.get("/keys").json()["data"]}
    assert listed[body["id"]]["key"] is None
    assert running.delete(f"/keys/{body['id']}").status_code == 204
    assert running.delete(f"/keys/{body['id']}").status_code == 204
    assert bare.get("/api/v1/models", headers=headers).status_code == 401


def test_a_revoked_key_gets_no_answer_that_was_kept(
    running: httpx.Client, bare: httpx.Client, trained: dict[str, Any]
) -> None:
    made = running.post("/keys", json={"name": "poller", "scopes": ["jobs"]}).json()
    headers = {"Authorization": f"Bearer {made['key']}"}
    path = f"/api/v1/jobs/{trained['id']}"
    assert [bare.get(path, headers=headers).status_code for _ in range(2)] == [200, 200]
    running.delete(f"/keys/{made['id']}")
    assert bare.get(path, headers=headers).status_code == 401
