import json

import pytest

JOB = {"id": "job_1", "object": "job", "kind": "pretrain", "status": "queued", "created_at": None}
COMMANDS = [
    [],
    ["up"],
    ["demo"],
    ["predict"],
    *([group] for group in ("datasets", "jobs", "models", "keys")),
    *(["datasets", name] for name in ("upload", "list", "show", "errors", "delete")),
    *(["jobs", name] for name in ("submit", "list", "show", "logs", "cancel", "pause", "resume")),
    *(["models", name] for name in ("list", "show", "alias", "download")),
    *(["keys", name] for name in ("create", "list", "revoke")),
]


def test_every_command_has_help():
    from typer.testing import CliRunner

    from anneal.cli import app

    for command in COMMANDS:
        result = CliRunner().invoke(app, [*command, "--help"], prog_name="anneal")
        assert result.exit_code == 0, command
        assert " ".join(["anneal", *command]) in result.output


def test_the_help_of_upload_names_archives():
    from typer.testing import CliRunner

    from anneal.cli import app

    output = CliRunner().invoke(app, ["datasets", "upload", "--help"], prog_name="anneal").output
    assert "zip of images or recordings" in " ".join(output.replace("│", " ").split())


def test_help_loads_neither_the_http_client_nor_the_service(anneal):
    import subprocess
    import sys

    script = (
        "import sys, anneal.cli;"
        "print([m for m in ('httpx', 'rich.progress', 'torch', 'service', 'store') if m in sys.modules])"
    )
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert loaded.stdout.strip() == "[]"


def test_json_is_what_the_api_answered(server, answer, anneal):
    page = {
        "object": "list",
        "data": [{**JOB, "metadata": {"ü": [1.5]}}],
        "first_id": "job_1",
        "last_id": "job_1",
    }
    server.on("GET /jobs", answer(200, {**page, "has_more": False}))

    done = anneal("jobs", "list", "--json")

    assert done.returncode == 0
    assert json.loads(done.stdout) == {**page, "has_more": False}
    assert done.stderr == ""


def test_a_table_without_json(server, answer, anneal):
    server.on("GET /jobs", answer(200, {"data": [{**JOB, "name": "[red]x"}], "has_more": False}))

    done = anneal("jobs", "list")

    assert done.returncode == 0
    assert "job_1" in done.stdout
    assert "[red]x" in done.stdout


def test_a_job_from_options_or_a_file(server, answer, anneal):
    server.on("POST /jobs", answer(202, JOB))
    options = [
        "--set",
        "learning_rate=0.01",
        "--set",
        "optimizer=adam",
        "--dataset",
        "train=ds_1",
        "--dataset",
        "test=ds_2",
    ]

    first = anneal("jobs", "submit", "--kind", "finetune", "--target", "y", "--model", "m", *options, "--json")
    second = anneal("jobs", "submit", "-", "--seed", "3", stdin='{"kind": "pretrain", "dataset": "ds_1", "seed": 1}')

    assert (first.returncode, second.returncode) == (0, 0)
    assert json.loads(first.stdout) == JOB
    assert server.requests[0].json() == {
        "kind": "finetune",
        "dataset": {"train": "ds_1", "test": "ds_2"},
        "columns": {"target": "y"},
        "output": {"model": "m"},
        "hyperparameters": {"learning_rate": 0.01, "optimizer": "adam"},
    }
    assert server.requests[1].json() == {"kind": "pretrain", "dataset": "ds_1", "seed": 3}


def test_a_refusal_exits_1_with_the_services_words_on_stderr(server, refuse, anneal):
    detail = 'Column "label" not found. Did you mean "Label"?'
    server.on("POST /jobs", refuse(422, detail, hint="Set columns.target.", request_id="req_9"))

    done = anneal("jobs", "submit", "--kind", "finetune", "--dataset", "ds_1", "--json")

    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == f"Error: {detail}\nSet columns.target.\n(request req_9)\n"


def test_waiting_for_a_job_that_fails_exits_1(server, answer, anneal):
    failed = {
        **JOB,
        "status": "failed",
        "error": {"message": "Loss is not a number.", "hint": "Lower the rate."},
    }
    server.on("POST /jobs", answer(202, JOB))
    server.on("GET /jobs/job_1", answer(200, failed))

    done = anneal("jobs", "submit", "--kind", "pretrain", "--dataset", "ds_1", "--wait", "--json")

    assert done.returncode == 1
    assert json.loads(done.stdout) == failed
    assert "Error: Job job_1 failed: Loss is not a number.\nLower the rate.\n" in done.stderr


def test_an_invalid_dataset_exits_1_and_a_ready_one_0(server, answer, anneal, tmp_path):
    (tmp_path / "rows.csv").write_text("a\n1\n")
    dataset = {"id": "ds_1", "name": "rows", "status": "processing"}
    remedy = 'Fix the row, or set on_bad_rows="skip".'
    errors = [
        {"code": "bad_value", "message": f'Row {row}, column "a": "x" is not a number.', "row": row, "remedy": remedy}
        for row in (2, 3)
    ]
    invalid = {**dataset, "status": "invalid", "validation": {"error_count": 2, "errors": errors}}
    server.on("POST /datasets", answer(201, dataset))
    server.on("GET /datasets/ds_1", answer(200, invalid), answer(200, {**dataset, "status": "ready"}))

    bad = anneal("datasets", "upload", "rows.csv", "--json")
    good = anneal("datasets", "upload", "rows.csv", "--split", "test=0.2", "--split", "column=part")

    assert bad.returncode == 1
    assert json.loads(bad.stdout) == invalid
    assert 'Row 2, column "a": "x" is not a number.' in bad.stderr
    assert bad.stderr.count(remedy) == 1
    assert good.returncode == 0
    assert "ds_1" in good.stdout
    assert b'{"test": 0.2, "column": "part"}' in server.asked("POST /datasets")[1].body


def test_datasets_are_compared_listed_and_changed(server, answer, anneal):
    dataset = {"id": "ds_1", "name": "rows", "version": 2, "status": "ready", "tags": ["clean"]}
    columns = {
        "added": ["new"],
        "removed": [],
        "retyped": {"a": ["integer", "string"]},
        "changed": {"b": {"mean": [1, 2.5]}},
    }
    rows = {"before": 4, "after": 5, "compared_columns": ["b"], "added": 2, "removed": 1}
    server.on("GET /datasets/ds_1", answer(200, dataset))
    server.on("PATCH /datasets/ds_1", answer(200, dataset))
    server.on("GET /datasets/ds_1/diff", answer(200, {"columns": columns, "rows": rows}))
    server.on("GET /datasets/ds_1/versions", answer(200, {"object": "list", "data": [dataset], "has_more": False}))
    server.on("GET /datasets", answer(200, {"object": "list", "data": [dataset], "has_more": False}))

    shown = anneal("datasets", "diff", "ds_1", "ds_0").stdout
    for said in ("4 before, 5 after", "new", "a: integer, now string", "2.5"):
        assert said in shown
    assert "rows" in anneal("datasets", "versions", "ds_1").stdout
    assert "clean" in anneal("datasets", "update", "ds_1", "--tag", "clean").stdout
    assert server.asked("PATCH /datasets/ds_1")[0].json() == {"tags": ["clean"]}
    assert anneal("datasets", "list", "--tag", "clean", "--format", "csv").returncode == 0
    assert server.asked("GET /datasets")[0].query == {"tag": "clean", "format": "csv", "limit": "20"}


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["jobs", "show"],
        ["jobs", "submit", "--kind", "pretrain"],
        ["jobs", "submit", "--kind", "pretrain", "--dataset", "ds_1", "--set", "oops"],
        ["predict", "m"],
        ["predict", "m", "--input", "{}", "--parameters", "[1"],
        ["models", "alias", "m", "production"],
    ],
)
def test_wrong_usage_exits_2_and_asks_nothing(server, anneal, arguments):
    done = anneal(*arguments)

    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr
    assert server.requests == []


@pytest.mark.parametrize("text", ['{"columns": "y"}', '{"columns": ["y"]}', "[" * 100_000, "\xff", ""])
def test_a_request_in_the_wrong_shape_is_wrong_usage(server, anneal, text):
    done = anneal("jobs", "submit", "-", "--kind", "pretrain", "--dataset", "ds_1", "--target", "y", stdin=text)

    assert done.returncode == 2
    assert "FILE" in done.stderr
    assert "Traceback" not in done.stderr
    assert server.requests == []


def test_an_unreachable_service_exits_3(anneal):
    done = anneal("--url", "http://127.0.0.1:9", "jobs", "list")

    assert done.returncode == 3
    assert done.stderr.startswith("Error: Cannot reach the service at http://127.0.0.1:9")
    assert "Traceback" not in done.stderr


def test_predictions_of_a_file_with_one_bad_row(server, answer, anneal, tmp_path):
    (tmp_path / "rows.csv").write_text("age,zip\n41,0123\nold,0456\n")
    schema = {"properties": {"age": {"type": "number"}, "zip": {"type": "string"}}}
    outputs = [{"label": "yes", "score": 0.9, "probabilities": {"yes": 0.9}}, None]
    errors = [{"index": 1, "code": "bad_value", "message": '"old" is not a number.', "hint": "Send a number."}]
    server.on("GET /models/m:2/schema", answer(200, {"input": schema, "output": {}}))
    server.on("POST /models/m:2/predict", answer(200, {"outputs": outputs, "errors": errors, "warnings": []}))

    done = anneal("predict", "m:2", "--file", "rows.csv")

    inputs = [{"age": 41, "zip": "0123"}, {"age": "old", "zip": "0456"}]
    assert server.requests[-1].json() == {"inputs": inputs}
    assert done.returncode == 1
    assert "yes" in done.stdout
    assert 'Input 1: "old" is not a number. Send a number.' in done.stderr


def test_a_new_keys_secret_is_alone_on_stdout(server, answer, anneal):
    server.on("POST /keys", answer(201, {"id": "key_1", "name": "ci", "key": "key_1.secret"}))

    done = anneal("keys", "create", "ci", "--scope", "predict")

    assert done.stdout == "key_1.secret\n"
    assert server.requests[0].json() == {"name": "ci", "scopes": ["predict"]}


@pytest.mark.parametrize(
    ("name", "value"),
    [("ANNEAL_API_KEY", "ключ"), ("ANNEAL_API_KEY", "key_1.one\nkey_2.two"), ("ANNEAL_URL", "http://[")],
)
def test_a_key_or_an_address_that_cannot_be_one_is_told_without_showing_the_key(server, anneal, name, value):
    done = anneal("jobs", "list", **{name: value})

    assert done.returncode == 1
    assert done.stderr.startswith("Error: The API key holds" if name == "ANNEAL_API_KEY" else 'Error: "http://["')
    assert "Traceback" not in done.stderr
    assert name != "ANNEAL_API_KEY" or not any(line in done.stderr for line in value.splitlines())
    assert server.requests == []


def test_a_download_to_a_folder_that_is_not_there_names_it(server, answer, anneal, tmp_path):
    server.on("GET /models/m/versions/1", answer(200, {"model": "m", "version": 1}))
    server.on("GET /models/m/versions/1/download", answer(200, "zip", {}, "application/zip"))
    (tmp_path / "a file").touch()

    missing = anneal("models", "download", "m:1", "--output", "nowhere/m.zip")
    no_folder = anneal("models", "download", "m:1", "--output", "a file/m.zip")

    assert (missing.returncode, no_folder.returncode) == (1, 1)
    assert missing.stderr == "Error: There is no folder nowhere to save m.zip in. Make it, or name another.\n"
    assert no_folder.stderr.startswith("Error: There is no folder a file ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a file"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("none.csv", b"a,b\n", "none.csv has no rows"),
        ("empty.jsonl", b"", "empty.jsonl has no rows"),
        ("long.csv", b"a,b\n1,2\n" + b"x" * 200_000 + b",2\n", "long.csv, line 3: field larger than"),
        ("deep.json", b"[" * 100_000, "deep.json: not JSON"),
        ("latin.csv", b"gr\xf6\xdfe\n1\n", "Save it as UTF-8 text."),
    ],
)
def test_a_file_of_inputs_that_cannot_be_read_is_named(server, answer, anneal, tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    server.on("GET /models/m/schema", answer(200, {"input": {}, "output": {}}))

    done = anneal("predict", "m", "--file", name)

    assert done.returncode == 1
    assert done.stderr.startswith("Error: ")
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not server.asked("POST /models/m/predict")


def test_an_input_at_fault_is_counted_once_and_within_the_file(server, answer, anneal, tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"a": 1}\n' * 101)
    errors = [{"index": 0, "code": "invalid_input", "message": 'Input 0: column "b" is missing.', "hint": "Add it."}]
    fine, wrong = {"outputs": [1] * 100, "errors": []}, {"outputs": [None], "errors": errors}
    server.on("POST /models/m/predict", answer(200, fine), answer(200, wrong))

    done = anneal("predict", "m", "--file", "rows.jsonl")

    assert 'Input 100: column "b" is missing. Add it.\n' in done.stderr
    assert "Input 0" not in done.stderr


def test_a_dataset_that_is_invalid_as_a_whole_says_why(server, answer, anneal, tmp_path):
    (tmp_path / "rows.csv").write_text("a\n1\n")
    error = {"code": "unknown_name", "message": 'Format "xls" not found.', "hint": "Leave format out."}
    dataset = {"id": "ds_1", "name": "rows", "status": "invalid", "validation": None, "error": error}
    server.on("POST /datasets", answer(201, dataset))
    server.on("GET /datasets/ds_1", answer(200, dataset))

    done = anneal("datasets", "upload", "rows.csv")

    assert done.returncode == 1
    assert 'Dataset ds_1 (rows) is invalid: Format "xls" not found.\nLeave format out.\n' in done.stderr


def test_metrics_are_numbers_in_a_line_and_tables_in_json(server, answer, anneal):
    table = {"a": {"count": 3, "f1": 0.25}}
    measured = {"accuracy": 0.75, "auc": None, "classes": table, "confusion_matrix": {"counts": [[3]]}}
    low = {"split": "test", "metrics": measured, "difference": {"accuracy": -0.125}}
    version = {"ref": "m:1", "metrics": {"test": measured, "bf16": low}}
    server.on("GET /jobs/job_1", answer(200, {**JOB, "result": {"metrics": version["metrics"]}}))
    server.on("GET /models/m/versions/1", answer(200, version))

    for command in (("jobs", "show", "job_1"), ("models", "show", "m:1")):
        shown = " ".join(anneal(*command).stdout.split())
        assert "test accuracy 0.75, auc -, with --json classes, confusion_matrix" in shown
        assert "bf16 split test, difference accuracy -0.125, with --json metrics" in shown
        assert "0.25" not in shown
        assert '"f1": 0.25' in anneal(*command, "--json").stdout
