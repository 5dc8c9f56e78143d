"""Every wrong request gets a problem that says what, where, the value and the fix, and shows nothing of the inside."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from servers import Stack
from support import classify, problem, stack_database, upload

from store import keys
from store.models import NewVersion, register

PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + bytes(64)
BOUNDARY_CASES = "a,b,label\n1,2,x\n3,4,y\n"


@pytest.fixture(scope="module")
def foreign_base(embedded: Stack, trained: dict[str, Any]) -> str:
    """A base model that learned from text; no task makes one yet, so its row is written directly."""
    database = stack_database(embedded)
    new = NewVersion(
        model="text-base",
        kind="base",
        task="language-model",
        architecture="bert",
        modality="text",
        metrics={},
        lineage={},
        files={},
    )
    with database.write() as session:
        register(session, keys.DEFAULT_PROJECT, trained["id"], new)
    database.close()
    return "text-base"


@pytest.fixture(scope="module")
def invalid(running: httpx.Client) -> dict[str, Any]:
    """A dataset of which two rows are wrong."""
    lines = ["a,b,label"] + [f"{n},{n / 2},{'xy'[n % 2]}" for n in range(300)]
    lines[150] = "149,abc,x"
    lines[200] = "199,1.5"
    return upload(running, "\n".join(lines) + "\n", "broken.csv", column_types='{"b": "number"}')


def test_no_file(running: httpx.Client) -> None:
    body = problem(running.post("/datasets", files={"other": ("x.csv", b"a\n1\n")}), 422, "invalid_request")
    assert body["param"] == "file"
    assert "required" in body["detail"]


def test_empty_file(running: httpx.Client) -> None:
    body = problem(running.post("/datasets", files={"file": ("nothing.csv", b"")}), 422, "empty_file")
    assert 'nothing.csv" is empty' in body["detail"]
    assert body["hint"] == "Send its content."


@pytest.mark.parametrize(
    "content",
    ["a,b\n", "\n\n\n", b"\x00" * 100, b"\xff\xfe\xfa" * 50],
    ids=["header only", "blank lines", "zeros", "no text"],
)
def test_a_file_without_examples_is_invalid(running: httpx.Client, content: str | bytes) -> None:
    dataset = upload(running, content, "odd.csv")
    assert dataset["status"] == "invalid"
    assert dataset["error"]["message"]
    assert dataset["error"]["hint"]


def test_a_picture_named_csv(running: httpx.Client) -> None:
    dataset = upload(running, PNG, "table.csv")
    assert dataset["status"] == "invalid"
    assert "PNG" in dataset["error"]["message"]
    assert dataset["error"]["hint"]


def test_wrong_rows_are_named(running: httpx.Client, invalid: dict[str, Any]) -> None:
    assert invalid["status"] == "invalid"
    assert invalid["error"]["code"] == "invalid_dataset"
    assert "150" in invalid["error"]["message"]
    listed = running.get(f"/datasets/{invalid['id']}/errors").json()
    assert listed["error_count"] == 2
    number, ragged = sorted(listed["errors"], key=lambda error: error["row"])
    assert (number["row"], number["column"], number["value"], number["file"]) == (150, "b", "abc", "broken.csv")
    assert ragged["row"] == 200
    assert number["remedy"]
    assert ragged["remedy"]
    assert "2" in ragged["message"]
    assert "3" in ragged["message"]
    assert invalid["validation"]["errors"] == listed["errors"]


def test_an_invalid_dataset_has_no_preview_and_no_jobs(running: httpx.Client, invalid: dict[str, Any]) -> None:
    body = problem(running.get(f"/datasets/{invalid['id']}/preview"), 409, "not_ready")
    assert "invalid" in body["detail"]
    body = problem(running.post("/jobs", json=classify(invalid["id"])), 409, "dataset_not_ready")
    assert invalid["id"] in body["detail"]
    assert body["param"] == "dataset"
    assert body["hint"]


def test_a_dataset_still_in_processing(embedded: Stack, running: httpx.Client) -> None:
    rows = "a,label\n" + "".join(f"{n},{n % 2}\n" for n in range(200_000))
    created = running.post("/datasets", files={"file": ("long.csv", rows)}).json()
    assert created["status"] == "processing"
    body = problem(running.post("/jobs", json=classify(created["id"])), 409, "dataset_not_ready")
    assert "processing" in body["detail"]
    problem(running.get(f"/datasets/{created['id']}/preview"), 409, "not_ready")
    assert running.delete(f"/datasets/{created['id']}").status_code == 204
    problem(running.get(f"/datasets/{created['id']}"), 404, "not_found")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"column_types": "[1]"}, "column_types"),
        ({"column_types": "{"}, "column_types"),
        ({"metadata": "no"}, "metadata"),
        ({"metadata": '{"a": NaN}'}, "metadata.a"),
        ({"metadata": '{"a": "\\u0000"}'}, "NUL"),
        ({"metadata": '{"a": "\\ud800"}'}, "surrogate"),
        ({"on_bad_rows": "explode"}, "on_bad_rows"),
        ({"column_types": '{"a": "colour"}'}, "colour"),
        ({"column_types": '{"a": 5}'}, '"a" is to be 5'),
        ({"name": "x" * 201}, "name"),
    ],
)
def test_wrong_upload_options(running: httpx.Client, fields: dict[str, str], said: str) -> None:
    body = problem(
        running.post("/datasets", files={"file": ("t.csv", BOUNDARY_CASES)}, data=fields), 422, "invalid_request"
    )
    assert said in body["detail"]
    assert body["hint"]


def test_an_upload_option_that_only_the_reader_can_judge(running: httpx.Client) -> None:
    dataset = upload(running, BOUNDARY_CASES, "t.csv", column_types='{"zzz": "number"}')
    assert dataset["status"] == "invalid"
    assert "zzz" in dataset["error"]["message"]
    assert dataset["error"]["code"] != "crashed"


def spec(change: Callable[[dict[str, Any]], Any]) -> Callable[[str], dict[str, Any]]:
    def body(rows: str) -> dict[str, Any]:
        whole = classify(rows)
        change(whole)
        return whole

    return body


# what is changed in a good request, status, code, and what the answer has to mention
JOBS = {
    "unknown target": (
        lambda b: b.update(columns={"target": "diagnoses"}),
        422,
        "unknown_name",
        ['"diagnoses"', 'Did you mean "diagnosis"?'],
    ),
    "unknown input": (
        lambda b: b["columns"].update(inputs=["mean_radus"]),
        422,
        "unknown_name",
        ['"mean_radus"', 'Did you mean "mean_radius"?'],
    ),
    "target among the inputs": (
        lambda b: b["columns"].update(inputs=["mean_radius", "diagnosis"]),
        422,
        "invalid_request",
        ["columns", '"diagnosis" is to be predicted', "leave it out"],
    ),
    "epochs too few": (
        lambda b: b.update(hyperparameters={"epochs": 0}),
        422,
        "invalid_request",
        ["hyperparameters.epochs", "greater than or equal to 1", "Got 0"],
    ),
    "learning rate negative": (
        lambda b: b.update(hyperparameters={"learning_rate": -1}),
        422,
        "invalid_request",
        ["hyperparameters.learning_rate", "-1"],
    ),
    "learning rate huge": (
        lambda b: b.update(hyperparameters={"learning_rate": 1e12}),
        422,
        "invalid_request",
        ["hyperparameters.learning_rate", "less than or equal to 10"],
    ),
    "batch size huge": (
        lambda b: b.update(hyperparameters={"batch_size": 10**12}),
        422,
        "invalid_request",
        ["hyperparameters.batch_size"],
    ),
    "wrong type": (
        lambda b: b.update(hyperparameters={"epochs": "many"}),
        422,
        "invalid_request",
        ["hyperparameters.epochs", '"many"'],
    ),
    "hyperparameters a list": (lambda b: b.update(hyperparameters=[1]), 422, "invalid_request", ["hyperparameters"]),
    "seed a word": (lambda b: b.update(seed="x"), 422, "invalid_request", ["seed", '"x"']),
    "seed negative": (lambda b: b.update(seed=-1), 422, "invalid_request", ["seed", "-1"]),
    "unknown field": (lambda b: b.update(targett="x"), 422, "invalid_request", ["targett"]),
    "unknown hyperparameter": (
        lambda b: b.update(hyperparameters={"epoch": 3}),
        422,
        "invalid_request",
        ["hyperparameters.epoch"],
    ),
    "mass assignment": (lambda b: b.update(project="other", state="succeeded"), 422, "invalid_request", ["project"]),
    "unknown kind": (lambda b: b.update(kind="train"), 422, "invalid_request", ["kind", "'pretrain' or 'finetune'"]),
    "unknown task": (
        lambda b: b.update(task="tabular-clasification"),
        422,
        "unknown_name",
        ["tabular-clasification", 'Did you mean "tabular-classification"?'],
    ),
    "task of another kind": (
        lambda b: b.update(kind="pretrain"),
        422,
        "invalid_config",
        ["tabular-classification", "finetune", "pretrain"],
    ),
    "no task": (lambda b: b.pop("task"), 422, "invalid_config", ["task"]),
    "no dataset": (lambda b: b.pop("dataset"), 422, "invalid_request", ["dataset", "required"]),
    "unknown dataset": (
        lambda b: b.update(dataset="ds_01ARZ3NDEKTSV4RRFFQ69G5FAV"),
        404,
        "not_found",
        ["ds_01ARZ3NDEKTSV4RRFFQ69G5FAV"],
    ),
    "unknown base": (lambda b: b.update(base_model="nobody"), 404, "not_found", ["nobody"]),
    "base no reference": (lambda b: b.update(base_model="../etc"), 404, "not_found", ["../etc", "name@alias"]),
    "compare alone": (lambda b: b.update(compare=True), 422, "invalid_config", ["compare", "base_model"]),
    "unknown architecture": (
        lambda b: b.update(architecture="mpl"),
        422,
        "unknown_name",
        ["mpl", 'Did you mean "mlp"?'],
    ),
    "architecture without name": (lambda b: b.update(architecture={"width": 3}), 422, "invalid_config", ["name"]),
    "unknown architecture option": (
        lambda b: b.update(architecture={"name": "mlp", "wdth": 3}),
        422,
        "invalid_config",
        ["wdth"],
    ),
    "unknown preprocessing": (lambda b: b.update(preprocessing={"scal": 1}), 422, "invalid_config", ["scal"]),
    "unknown task option": (lambda b: b.update(task_config={"smooth": 1}), 422, "invalid_config", ["smooth"]),
    "unknown checkpoint": (lambda b: b.update(continue_from="ck_0"), 422, "unknown_name", ["ck_0"]),
    "base and checkpoint": (lambda b: b.update(base_model="shared", continue_from="ck_0"), 422, None, []),
    "unknown split column": (lambda b: b.update(split={"column": "part"}), 422, "unknown_name", ["part"]),
    "split leaves nothing": (
        lambda b: b.update(split={"validation": 0.6, "test": 0.5}),
        422,
        "invalid_request",
        ["no rows for training"],
    ),
    "bad model name": (lambda b: b.update(output={"model": "../x"}), 422, "invalid_request", ["output.model"]),
    "shell in a name": (lambda b: b.update(output={"model": "$(id)"}), 422, "invalid_request", ["output.model"]),
    "bad alias": (lambda b: b.update(output={"aliases": ["A"]}), 422, "invalid_request", ["output.aliases.0"]),
    "unknown device": (lambda b: b.update(resources={"device": "tpu"}), 422, "invalid_request", ["resources.device"]),
    "no such device": (
        lambda b: b.update(resources={"device": "cuda"}),
        422,
        "invalid_config",
        ["CUDA", "1 without", "resources.device"],
    ),
    "no inputs": (lambda b: b["columns"].update(inputs=[]), 422, "invalid_config", ["columns.inputs", "empty"]),
    "no target": (lambda b: b.pop("columns"), 422, "invalid_config", ["exactly one column", "names none", "target"]),
    "two targets": (
        lambda b: b.update(columns={"targets": ["diagnosis", "mean_radius"]}),
        422,
        "invalid_config",
        ["exactly one column", "names 2"],
    ),
    "numbers that are texts": (
        lambda b: b.update(task="tabular-regression"),
        422,
        "invalid_data",
        ['"diagnosis"', "no numbers"],
    ),
    "NUL in a name": (lambda b: b.update(name="a\0b"), 422, "invalid_request", ["NUL", "name"]),
    "deep metadata": (
        lambda b: b.update(metadata=json.loads('{"a":' * 100 + "1" + "}" * 100)),
        422,
        "invalid_request",
        ["deeper"],
    ),
}


@pytest.mark.parametrize("case", JOBS)
def test_wrong_jobs(running: httpx.Client, rows: str, trained: dict[str, Any], case: str) -> None:
    change, status, code, said = JOBS[case]
    response = running.post("/jobs", json=spec(change)(rows))
    body = problem(response, status, code or response.json()["code"])
    for word in said:
        assert word in body["detail"] + " " + (body["hint"] or ""), body
    assert body["hint"] or case in ("base and checkpoint",), body


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
@pytest.mark.parametrize("place", ['"hyperparameters": {"learning_rate": %s}', '"metadata": {"x": %s}'])
def test_numbers_that_are_none(running: httpx.Client, rows: str, place: str, number: str) -> None:
    text = json.dumps(classify(rows)).replace('"hyperparameters": {"epochs": 2}', place % number)
    assert number in text
    response = running.post("/jobs", content=text, headers={"Content-Type": "application/json"})
    body = problem(response, 422, "invalid_request")
    assert "learning_rate" in body["detail"] or "metadata.x" in body["detail"]


def test_a_target_with_one_class(running: httpx.Client) -> None:
    dataset = upload(running, "a,label\n" + "".join(f"{n},same\n" for n in range(40)))
    body = problem(
        running.post("/jobs", json=classify(dataset["id"], columns={"target": "label"})), 422, "invalid_data"
    )
    assert 'only the value "same"' in body["detail"]
    assert body["param"] == "columns.target"
    assert "another class" in body["hint"]


def test_a_base_of_another_modality(running: httpx.Client, rows: str, foreign_base: str) -> None:
    body = problem(running.post("/jobs", json=classify(rows, base_model=foreign_base)), 422, "incompatible_model")
    assert "text-base:1" in body["detail"]
    assert "text data" in body["detail"]
    assert "tabular" in body["detail"]
    assert body["param"] == "base_model"


ONE = {"mean_radius": 12.0}


@pytest.mark.parametrize(
    ("change", "said", "hint"),
    [
        (
            {"hyperparameters": {"learning_rat": 0.1}},
            "hyperparameters.learning_rat: there is no such field",
            "batch_size",
        ),
        ({"early_stopping": {"patients": 3}}, "early_stopping.patients: there is no such field", "min_delta"),
        ({"output": {"modell": "a"}}, "output.modell: there is no such field", "aliases"),
        ({"hyperparameters": None}, "Input should be a valid JSON object. Got null.", "/docs"),
        ({"output": {"model": "My Model!"}}, "output.model: a name is made of", "/docs"),
    ],
)
def test_a_wrong_field_is_told_in_the_callers_words(
    running: httpx.Client, change: dict[str, Any], said: str, hint: str
) -> None:
    body = problem(running.post("/jobs", json=classify("ds_any") | change), 422, "invalid_request")
    assert said in body["detail"]
    assert hint in body["hint"]
    assert ("Did you mean" in body["hint"]) == ("no such field" in said)


def test_text_or_a_bare_body_where_a_file_is_wanted(running: httpx.Client) -> None:
    # What curl sends when the @ is forgotten, and what it sends for --data-binary.
    text = problem(running.post("/datasets", files={"file": (None, "rows.csv")}), 422, "invalid_request")
    bare = problem(
        running.post("/datasets", content=b"a,b\n", headers={"Content-Type": "text/csv"}), 415, "unsupported_media_type"
    )
    assert text["detail"].startswith("file: a file is wanted, not text")
    assert "UploadFile" not in json.dumps(text)
    assert "-F file=@" in text["detail"]
    assert "-F file=@" in bare["hint"]


@pytest.mark.parametrize(
    ("content", "name", "what", "step"),
    [
        (b"PAR1" + bytes(40), "table.parquet", "a Parquet file", "Its end is missing"),
        (b'[\n {"a": 1},\n {"a": 2}\n]\n', "table.json", "a JSON array", "on a line of its own"),
    ],
)
def test_a_file_that_is_nearly_a_format_says_the_step_to_it(
    running: httpx.Client, content: bytes, name: str, what: str, step: str
) -> None:
    dataset = upload(running, content, name)
    assert dataset["status"] == "invalid"
    assert f'"{name}" was not recognised: it begins like {what}' in dataset["error"]["message"]
    assert step in dataset["error"]["hint"]
