"""Wrong prediction requests: each input is told what is wrong with it, and its neighbours are answered."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from support import classify, problem, submit, succeeded, upload

ONE = {"mean_radius": 12.0}


@pytest.fixture(scope="module")
def example(running: httpx.Client, trained: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = running.get("/models/shared/schema").json()["example"]
    return found


def test_predict_with_an_unknown_model(running: httpx.Client) -> None:
    for ref in ("nobody", "nobody:1", "nobody@production", "UPPER", "a:b", "..%2f..%2fetc"):
        body = problem(running.post(f"/models/{ref}/predict", json={"inputs": [ONE]}), 404, "not_found")
        assert body["hint"]
    assert '"nobody"' in running.post("/models/nobody/predict", json={"inputs": [ONE]}).json()["detail"]


def test_predict_with_an_unknown_version_or_alias(running: httpx.Client, trained: dict[str, Any]) -> None:
    assert (
        "version 99"
        in problem(running.post("/models/shared:99/predict", json={"inputs": [ONE]}), 404, "not_found")["detail"]
    )
    assert (
        '"stage"'
        in problem(running.post("/models/shared@stage/predict", json={"inputs": [ONE]}), 404, "not_found")["detail"]
    )


def test_one_bad_input_leaves_its_neighbours_alone(running: httpx.Client, example: dict[str, Any]) -> None:
    missing = {("mean_radus" if name == "mean_radius" else name): value for name, value in example.items()}
    wrong = {**example, "mean_texture": "abc"}
    inputs = [example, missing, wrong, 5, example]
    answer = running.post("/models/shared/predict", json={"inputs": inputs}).json()
    assert [output is None for output in answer["outputs"]] == [False, True, True, True, False]
    assert answer["outputs"][0]["score"] == pytest.approx(answer["outputs"][4]["score"])
    errors = {error["index"]: error for error in answer["errors"]}
    assert set(errors) == {1, 2, 3}
    assert "mean_radius" in errors[1]["message"] + str(errors[1]["hint"])
    assert "Did you mean" in errors[1]["message"] + str(errors[1]["hint"])
    assert "mean_texture" in errors[2]["message"]
    assert "abc" in errors[2]["message"]
    assert errors[2]["hint"]
    assert answer["timing"]["batch_size"] == 2


def test_half_a_surrogate_pair_in_an_input(running: httpx.Client, example: dict[str, Any]) -> None:
    text = json.dumps({"inputs": [{**example, "mean_texture": "\ud800"}, {**example, "\ud800": 1}]})
    response = running.post("/models/shared/predict", content=text, headers={"Content-Type": "application/json"})
    assert response.status_code in (200, 422), response.text
    assert running.get("/models").status_code == 200


@pytest.mark.parametrize(("inputs", "said"), [([], "at least 1"), (None, "list"), ({}, "list"), ("x", "list")])
def test_inputs_that_are_no_list(running: httpx.Client, trained: dict[str, Any], inputs: Any, said: str) -> None:
    body = problem(running.post("/models/shared/predict", json={"inputs": inputs}), 422, "invalid_request")
    assert "inputs" in body["detail"]
    assert said in body["detail"]


def test_too_many_inputs(running: httpx.Client, trained: dict[str, Any]) -> None:
    body = problem(running.post("/models/shared/predict", json={"inputs": [{}] * 10_001}), 413, "too_many_inputs")
    assert "10001" in body["detail"]
    assert "10000" in body["detail"]
    assert body["hint"] == "Send them in several requests."


def test_unknown_parameters(running: httpx.Client, trained: dict[str, Any]) -> None:
    asked = {"inputs": [ONE], "parameters": {"tok_k": 1}}
    body = problem(running.post("/models/shared/predict", json=asked), 422, "invalid_config")
    assert "tok_k" in body["detail"]
    assert "top_k" in body["hint"]


def test_an_unknown_category_is_answered_with_a_warning(running: httpx.Client) -> None:
    lines = ["size,colour,label"] + [f"{n % 17},{('red', 'blue')[n % 2]},{('yes', 'no')[n % 2]}" for n in range(120)]
    dataset = upload(running, "\n".join(lines))
    body = classify(dataset["id"], columns={"target": "label"}, output={"model": "colours"})
    succeeded(running, submit(running, body))
    answer = running.post("/models/colours/predict", json={"inputs": [{"size": 3, "colour": "green"}]}).json()
    assert answer["outputs"][0]["label"] in ("yes", "no")
    assert answer["errors"] == []
    (warning,) = answer["warnings"]
    assert warning["index"] == 0
    assert "green" in warning["message"]
    assert "colour" in warning["message"]
