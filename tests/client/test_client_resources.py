import json
from pathlib import Path

import pytest

import anneal

DATASET = {"id": "ds_1", "object": "dataset", "name": "few", "status": "processing", "columns": []}
JOB = {"id": "job_1", "object": "job", "kind": "finetune", "status": "running", "progress": None}


def test_an_upload_streams_the_file_and_reports_its_progress(server, client, answer, refuse, tmp_path: Path):
    file = tmp_path / "rows.csv"
    content = b"a,b\n" + b"1,2\n" * 100_000
    file.write_bytes(content)
    server.on("POST /datasets", refuse(503, "Busy."), answer(201, DATASET))
    seen = []

    dataset = client.datasets.upload(
        file,
        name="few",
        column_types={"a": "integer"},
        split={"test": 0.25},
        progress=lambda sent, total: seen.append((sent, total)),
    )

    assert dataset.id == "ds_1"
    first, second = server.asked("POST /datasets")
    assert content in first.body
    assert content in second.body
    assert b'name="column_types"\r\n\r\n{"a": "integer"}' in second.body
    assert b'name="split"\r\n\r\n{"test": 0.25}' in second.body
    assert b'filename="rows.csv"' in second.body
    assert int(first.headers["content-length"]) == len(first.body)
    assert seen[0][0] < len(content)
    assert seen[-1] == (len(content), len(content))


def test_a_missing_file_and_a_folder_are_told_before_anything_is_sent(server, client, tmp_path: Path):
    with pytest.raises(anneal.AnnealError, match="There is no file"):
        client.datasets.upload(tmp_path / "none.csv")
    with pytest.raises(anneal.AnnealError, match="Upload one of the files"):
        client.datasets.upload(tmp_path)

    assert server.requests == []


def test_a_dataset_is_changed_compared_and_sampled(server, client, answer):
    listing = {"object": "list", "data": [DATASET, {**DATASET, "id": "ds_0"}], "has_more": False}
    server.on("GET /datasets/ds_1", answer(200, DATASET))
    server.on("PATCH /datasets/ds_1", answer(200, {**DATASET, "tags": ["a"]}))
    server.on("GET /datasets/ds_1/versions", answer(200, listing))
    server.on("GET /datasets/ds_1/diff", answer(200, {"rows": {"added": 3}}))
    server.on("GET /datasets/ds_1/preview", answer(200, {"columns": [], "rows": []}))
    server.on("GET /datasets/ds_1/schema", answer(200, {"json_schema": {"type": "object"}}))

    dataset = client.datasets.get("ds_1")

    assert dataset.update(tags=("a",)) is dataset
    assert dataset.tags == ["a"]
    assert server.asked("PATCH /datasets/ds_1")[0].json() == {"tags": ["a"]}
    older = [version.id for version in dataset.versions()][1]
    assert dataset.diff(older).rows.added == 3
    assert server.asked("GET /datasets/ds_1/diff")[0].query == {"against": "ds_0"}
    dataset.preview(3, sample="random", seed=5)
    assert server.asked("GET /datasets/ds_1/preview")[0].query == {"rows": "3", "sample": "random", "seed": "5"}
    assert dataset.schema().json_schema.type == "object"


def test_waiting_for_a_dataset_long_polls_until_it_is_ready(server, client, answer):
    server.on(
        "GET /datasets/ds_1",
        answer(200, DATASET),
        answer(200, DATASET),
        answer(200, {**DATASET, "status": "ready", "num_rows": 20}),
    )

    dataset = client.datasets.get("ds_1").wait()

    assert dataset.num_rows == 20
    assert [request.query.get("wait") for request in server.requests] == [None, "30", "30"]


def test_an_invalid_dataset_raises_with_its_row_errors(server, client, answer):
    message = 'Row 3, column "age": "abc" is not an integer.'
    errors = [{"code": "bad_value", "message": message, "row": 3, "column": "age", "value": "abc"}]
    validation = {"ok": False, "error_count": 41, "errors": errors}
    server.on("GET /datasets/ds_1", answer(200, {**DATASET, "status": "invalid", "validation": validation}))

    with pytest.raises(anneal.DatasetInvalid) as caught:
        client.datasets.get("ds_1").wait()

    assert str(caught.value) == f"Dataset ds_1 (few) is invalid: 41 errors.\n  {message}"
    assert caught.value.dataset.status == "invalid"


def test_waiting_for_a_job_uses_the_etag_and_reports_each_change(server, client, answer):
    half = {**JOB, "progress": {"fraction": 0.5}}
    server.on(
        "GET /jobs/job_1",
        answer(200, JOB),
        answer(200, half, {"ETag": '"2"'}),
        answer(304),
        answer(200, {**JOB, "status": "succeeded"}, {"ETag": '"3"'}),
    )
    seen = []

    job = client.jobs.get("job_1").wait(progress=lambda job: seen.append(job.status))

    assert job.status == "succeeded"
    assert seen == ["running", "succeeded"]
    assert [r.headers.get("if-none-match") for r in server.requests] == [None, None, '"2"', '"2"']


def test_a_failed_job_raises_with_its_reason_and_remedy(server, client, answer):
    error = {"code": "out_of_memory", "message": "Ran out of memory at step 3.", "hint": "Set batch_size 16."}
    server.on("GET /jobs/job_1", answer(200, {**JOB, "status": "failed", "error": error}))

    with pytest.raises(anneal.JobFailed) as caught:
        client.jobs.get("job_1").wait()

    assert str(caught.value) == "Job job_1 failed: Ran out of memory at step 3.\nSet batch_size 16."
    assert caught.value.code == "out_of_memory"
    assert caught.value.job.id == "job_1"


def test_a_wait_that_takes_too_long_ends_with_its_own_error(server, client, answer):
    server.on("GET /jobs/job_1", answer(200, JOB))

    with pytest.raises(anneal.WaitTimeout, match="job_1 has not ended"):
        client.jobs.get("job_1").wait(timeout=0.5)
    assert issubclass(anneal.WaitTimeout, TimeoutError)


def test_a_job_is_created_with_only_what_was_given(server, client, answer):
    server.on("POST /jobs", answer(202, JOB))

    client.jobs.create(
        "finetune",
        dataset={"train": "ds_1", "test": "ds_2"},
        task="tabular-classification",
        target="diagnosis",
        base_model="base",
        model="final",
        hyperparameters={"learning_rate": 0.01},
        compare=True,
        seed=0,
        output={"aliases": ["production"]},
    )

    assert server.requests[0].json() == {
        "kind": "finetune",
        "task": "tabular-classification",
        "dataset": {"train": "ds_1", "test": "ds_2"},
        "base_model": "base",
        "hyperparameters": {"learning_rate": 0.01},
        "compare": True,
        "seed": 0,
        "columns": {"target": "diagnosis"},
        "output": {"aliases": ["production"], "model": "final"},
    }


def test_a_list_goes_on_over_all_its_pages(server, client, answer):
    def page(request):
        first = not request.query.get("after")
        ids = ["job_3", "job_2"] if first else ["job_1"]
        data = [{**JOB, "id": job_id} for job_id in ids]
        return answer(200, {"object": "list", "data": data, "last_id": ids[-1], "has_more": first})

    server.on("GET /jobs", page)

    listed = client.jobs.list(status="running", limit=2)

    assert len(listed) == 2
    assert [job.id for job in listed.all()] == ["job_3", "job_2", "job_1"]
    assert [request.query for request in server.requests] == [
        {"status": "running", "limit": "2"},
        {"status": "running", "limit": "2", "after": "job_2"},
    ]


def test_views_are_read_only_and_name_the_fields_they_have(server, client, answer):
    server.on("GET /jobs/job_1", answer(200, {**JOB, "metrics": {"best": {"values": 1}}}))
    job = client.jobs.get("job_1")

    assert job["metrics"].best.values == 1
    assert job.to_dict()["status"] == "running"
    assert repr(job) == "Job(id='job_1', status='running')"
    with pytest.raises(AttributeError, match="read-only"):
        job.status = "done"
    with pytest.raises(AttributeError, match="Fields: id, object"):
        _ = job.nothing


def test_a_download_appears_only_when_it_is_complete(server, client, answer, tmp_path: Path):
    server.on("GET /models/m", answer(200, {"name": "m", "latest_version": 3, "aliases": {"best": 2}}))
    server.on("GET /models/m/versions/2/download", answer(200, "PK-zip", {}, "application/zip"))
    server.on("GET /models/m/versions/3/download", answer(200, "PK", {"Content-Length": "99"}))

    assert client.models.download("m@best", tmp_path).read_text() == "PK-zip"
    with pytest.raises(anneal.ConnectionFailed):
        client.models.download("m", tmp_path)

    assert [path.name for path in tmp_path.iterdir()] == ["m-2.zip"]
    with pytest.raises(anneal.NotFound, match="Aliases: best"):
        client.models.version("m@worst")


def test_a_prediction_takes_one_input_or_many(server, client, answer):
    server.on("POST /models/m@best/predict", answer(200, {"outputs": [{"label": "x"}], "errors": []}))

    output = client.predict("m@best", {"a": 1}, {"top_k": 2}).outputs[0]

    assert output.label == "x"
    assert json.loads(server.requests[0].body) == {"inputs": [{"a": 1}], "parameters": {"top_k": 2}}
    for inputs in ("a text", ["a text"], ("a text",)):
        client.predict("m@best", inputs)
        assert json.loads(server.requests[-1].body) == {"inputs": ["a text"]}
