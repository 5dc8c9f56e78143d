from anneal.events import parse

JOB = {"id": "job_1", "object": "job", "kind": "pretrain"}


def sse(*sequences, retry=20):
    events = [f'id: {n}\nevent: progress\ndata: {{"fraction": {n / 10}}}\n\n' for n in sequences]
    return f"retry: {retry}\n\n: keep-alive\n\n" + "".join(events)


def test_a_broken_stream_is_taken_up_after_the_last_event(server, client, answer):
    cut = answer(200, sse(1, 2), {"Content-Length": "9999"}, "text/event-stream")
    rest = answer(200, sse(2, 3), {}, "text/event-stream")
    server.on(
        "GET /jobs/job_1",
        answer(200, {**JOB, "status": "running"}),
        answer(200, {**JOB, "status": "succeeded"}),
    )
    stored = answer(200, {"data": [], "has_more": False})
    server.on("GET /jobs/job_1/events", cut, rest, stored)

    events = list(client.jobs.get("job_1").events())

    assert [event.sequence for event in events] == [1, 2, 3]
    assert events[0].data.fraction == 0.1
    asked = server.asked("GET /jobs/job_1/events")
    assert [request.headers.get("last-event-id") for request in asked] == [None, "2", None]
    assert asked[0].headers["accept"] == "text/event-stream"


def test_a_stream_that_ends_early_goes_on_and_the_last_events_are_not_lost(server, client, answer):
    server.on(
        "GET /jobs/job_1",
        answer(200, {**JOB, "status": "running"}),
        answer(200, {**JOB, "status": "running"}),
        answer(200, {**JOB, "status": "succeeded"}),
    )
    stored = {
        "data": [{"object": "event", "sequence": 3, "type": "succeeded", "data": {}}],
        "has_more": False,
    }
    server.on(
        "GET /jobs/job_1/events",
        answer(200, sse(1), {}, "text/event-stream"),
        answer(200, sse(2), {}, "text/event-stream"),
        answer(200, stored),
    )

    events = list(client.jobs.get("job_1").events())

    assert [(event.sequence, event.type) for event in events] == [
        (1, "progress"),
        (2, "progress"),
        (3, "succeeded"),
    ]


def test_stored_events_are_read_page_by_page(server, client, answer):
    server.on("GET /jobs/job_1", answer(200, {**JOB, "status": "succeeded"}))

    def page(request):
        n = int(request.query["after"]) + 1
        return answer(200, {"data": [{"object": "event", "sequence": n, "type": "t"}], "has_more": n < 3})

    server.on("GET /jobs/job_1/events", page)

    assert [event.sequence for event in client.jobs.get("job_1").events(follow=False)] == [1, 2, 3]


def test_logs_are_followed_to_the_end_without_repeating(server, client, answer):
    server.on(
        "GET /jobs/job_1",
        answer(200, {**JOB, "status": "running"}),
        answer(200, {**JOB, "status": "running"}),
        answer(200, {**JOB, "status": "succeeded"}),
    )
    server.on(
        "GET /jobs/job_1/logs",
        answer(200, "one\n", {}, "text/plain"),
        answer(200, "one\ntwo\n", {}, "text/plain"),
    )

    assert list(client.jobs.get("job_1").follow_logs()) == ["one\n", "two\n"]


def test_server_sent_lines_become_messages():
    lines = [": ping", "", "id: 7", "event: log", "data: a", "data: b", "", "retry: 5", "", "data: cut off"]

    assert list(parse(lines)) == [{"id": "7", "event": "log", "data": "a\nb"}, {"retry": "5"}]
