import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

import anneal
from anneal.client import Client
from anneal.retry import RetryPolicy, retry_after_s

JOB = {"id": "job_1", "object": "job", "kind": "pretrain", "status": "queued"}


def test_retries_of_one_post_carry_the_same_idempotency_key(server, client, answer, refuse):
    server.on("POST /jobs", refuse(503, "Busy."), refuse(502, "Gone."), answer(202, JOB))

    job = client.jobs.create("pretrain", dataset="ds_1")
    client.jobs.create("pretrain", dataset="ds_1")

    assert job.id == "job_1"
    keys = [request.headers["idempotency-key"] for request in server.asked("POST /jobs")]
    assert len(keys) == 4
    assert keys[0] == keys[1] == keys[2] != keys[3]


def test_an_answer_that_broke_off_is_asked_for_again_with_the_same_key(server, client, answer):
    broken = answer(202, "{", {"Content-Length": "500"})
    server.on("POST /jobs", broken, answer(202, JOB))

    assert client.jobs.create("pretrain", dataset="ds_1").id == "job_1"

    first, second = server.asked("POST /jobs")
    assert first.headers["idempotency-key"] == second.headers["idempotency-key"]


def test_retry_after_is_honoured(server, client, answer, refuse):
    server.on("GET /jobs/job_1", refuse(429, "Slow down.", {"Retry-After": "1"}), answer(200, JOB))

    began = time.monotonic()
    client.jobs.get("job_1")

    assert 1.0 <= time.monotonic() - began < 2.5


def test_a_retry_after_of_hours_is_told_at_once(server, client, refuse):
    server.on("GET /jobs/job_1", refuse(429, "Quota used up.", {"Retry-After": "7200"}))

    with pytest.raises(anneal.RateLimited, match="Quota used up"):
        client.jobs.get("job_1")

    assert len(server.requests) == 1


def test_retry_after_may_be_a_date():
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)

    assert retry_after_s({"retry-after": date}) == pytest.approx(30, abs=2)
    assert retry_after_s({"retry-after": "soon"}) is None
    assert retry_after_s({}) is None


def test_a_conflict_still_in_work_is_tried_again_but_a_permanent_one_is_not(server, client, answer, refuse):
    in_flight = refuse(409, "In flight.", {"Retry-After": "0"})
    server.on("POST /jobs", in_flight, answer(202, JOB))
    server.on("DELETE /datasets/ds_1", refuse(409, "Job job_1 uses it.", {"x-should-retry": "false"}))

    client.jobs.create("pretrain", dataset="ds_1")
    with pytest.raises(anneal.Conflict, match="Job job_1 uses it"):
        client.datasets.delete("ds_1")

    assert len(server.asked("DELETE /datasets/ds_1")) == 1


def test_pauses_grow_and_are_capped():
    policy = RetryPolicy(first_pause_s=1.0, longest_pause_s=4.0)

    pauses = [policy.pause_s(attempt) for attempt in range(6)]

    assert all(0.75 * base <= p <= 1.25 * base for p, base in zip(pauses, (1, 2, 4, 4, 4, 4), strict=True))
    assert policy.pause_s(0, retry_after_s=9.0) == 9.0


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, anneal.InvalidRequest),
        (401, anneal.Unauthorized),
        (403, anneal.PermissionDenied),
        (404, anneal.NotFound),
        (409, anneal.Conflict),
        (413, anneal.TooLarge),
        (415, anneal.InvalidRequest),
        (422, anneal.InvalidRequest),
        (500, anneal.ServerError),
    ],
)
def test_errors_are_typed_by_status(server, client, refuse, status, kind):
    server.on("GET /jobs/job_1", refuse(status, "It did not work.", code="some_code", request_id="req_1"))

    with pytest.raises(kind, match="It did not work") as caught:
        client.jobs.get("job_1")

    assert (caught.value.status, caught.value.code, caught.value.request_id) == (status, "some_code", "req_1")
    assert len(server.requests) == 1


def test_an_error_reads_as_it_is_meant_to(server, client, refuse):
    message = 'Column "label" not found. Columns: id, text, Label. Did you mean "Label"?'
    errors = [
        {"code": "column_not_found", "message": message, "pointer": "/columns/target"},
        {"code": "bad_value", "message": '"abc" is not an integer.', "row": 7, "column": "age"},
    ]
    hint = 'Fix the row, or set on_bad_rows="skip".'
    server.on("POST /jobs", refuse(422, "The job cannot run.", hint=hint, errors=errors))

    with pytest.raises(anneal.InvalidRequest) as caught:
        client.jobs.create("finetune", dataset="ds_1")

    assert str(caught.value).splitlines() == [
        "The job cannot run.",
        f"  /columns/target: {message}",
        "  Row 7, column 'age': \"abc\" is not an integer.",
        hint,
    ]
    assert caught.value.errors == errors


def test_a_proxys_answer_without_json_is_an_error_in_words_too(server, client, answer):
    server.on("GET /jobs/job_1", answer(404, "<html>nope</html>", {}, "text/html"))

    with pytest.raises(anneal.NotFound, match="answered 404"):
        client.jobs.get("job_1")


def test_an_unreachable_service_says_how_to_start_one():
    with Client("http://127.0.0.1:9", "k") as client, pytest.raises(anneal.ConnectionFailed) as caught:
        client.jobs.list()

    assert "http://127.0.0.1:9" in str(caught.value)
    assert "anneal up" in str(caught.value)


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://host", "", "http://", "http://[", "http://host:99999"])
def test_an_address_that_is_none_is_refused_with_an_example(url, monkeypatch):
    monkeypatch.setenv("ANNEAL_URL", "nothing")

    with pytest.raises(anneal.AnnealError, match=r"http://127\.0\.0\.1:8000"):
        Client(url)


def test_the_key_file_is_read_for_this_machine_only(server, answer, tmp_path: Path, monkeypatch):
    (tmp_path / "api_key").write_text("id.from-file\n")
    monkeypatch.setenv("ANNEAL_DATA_DIR", str(tmp_path))
    monkeypatch.delenv("ANNEAL_API_KEY", raising=False)
    server.on("GET /queue", answer(200, {"running": 0, "queued": 0}))

    from anneal.client import key_on_disk

    with Client(server.url) as client:
        assert client.queue().running == 0

    assert server.requests[0].headers["authorization"] == "Bearer id.from-file"
    assert key_on_disk("http://127.0.0.1:1") == "id.from-file"
    assert key_on_disk("https://anneal.example.com") is None


def test_a_refusal_without_a_key_says_how_to_give_one(server, refuse, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ANNEAL_API_KEY", raising=False)
    monkeypatch.delenv("ANNEAL_DATA_DIR", raising=False)
    server.on("GET /queue", refuse(401, "A key is needed."))

    with Client(server.url) as client, pytest.raises(anneal.Unauthorized, match="ANNEAL_API_KEY"):
        client.queue()

    assert "authorization" not in server.requests[0].headers
