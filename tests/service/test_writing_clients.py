"""Texts that go on, asked for by OpenAI's and Hugging Face's own clients, unmodified, on both columns."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.inference._common import TextGenerationError
from openai import OpenAI
from registered import register_text, register_writer
from servers import Stack
from support import wait_until

DRAWN: dict[str, Any] = {"temperature": 0.8, "top_p": 0.9, "seed": 11}


@pytest.fixture(scope="module")
def writer(stack: Stack) -> str:
    """A model that writes; beside it, `talks-not` does not."""
    register_writer(stack, "talks")
    register_text(stack, "talks-not")
    return "talks"


@pytest.fixture(scope="module")
def client(stack: Stack, writer: str) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{stack.url}/v1", api_key=stack.key) as opened:
        yield opened


def hugging_face(stack: Stack, model: str) -> InferenceClient:
    return InferenceClient(model=f"{stack.url}/hf/models/{model}", token=stack.key)


def native(api: httpx.Client, prompt: str, **parameters: Any) -> dict[str, Any]:
    asked = {"inputs": [prompt], "parameters": parameters}
    found: dict[str, Any] = api.post("/models/talks/predict", json=asked).json()["outputs"][0]
    return found


def test_a_completion(client: OpenAI, api: httpx.Client, writer: str) -> None:
    made = client.completions.create(model=writer, prompt="where is", max_tokens=30, **DRAWN)
    expected = native(api, "where is", max_new_tokens=30, **DRAWN)
    assert (made.object, made.model) == ("text_completion", "talks:1")
    (choice,) = made.choices
    assert (choice.text, choice.finish_reason, choice.index) == (expected["text"], "length", 0)
    assert made.usage is not None
    assert (made.usage.prompt_tokens, made.usage.completion_tokens) == (expected["prompt_tokens"], 30)
    # Their defaults: 16 tokens, drawn as the model says; as little as nothing of a temperature is none.
    short = client.completions.create(model=writer, prompt="where is", seed=3)
    assert short.choices[0].text == native(api, "where is", max_new_tokens=16, temperature=1.0, seed=3)["text"]
    cold = client.completions.create(model=writer, prompt="where is", temperature=1e-5)
    assert cold.choices[0].text == native(api, "where is", max_new_tokens=16)["text"]


def test_several_prompts_and_choices(client: OpenAI, api: httpx.Client, writer: str) -> None:
    asked: dict[str, Any] = {"prompt": ["where", "今天"], "n": 2, "max_tokens": 12, "stop": ["e", "o"], **DRAWN}
    made = client.completions.create(model=writer, **asked)
    expected = [
        native(api, prompt, max_new_tokens=12, stop=["e", "o"], **{**DRAWN, "seed": DRAWN["seed"] + choice})
        for prompt in asked["prompt"]
        for choice in (0, 1)
    ]
    assert [(one.text, one.finish_reason) for one in made.choices] == [
        (one["text"], one["finish_reason"]) for one in expected
    ]
    assert [one.index for one in made.choices] == [0, 1, 2, 3]
    assert made.usage is not None
    assert made.usage.prompt_tokens == expected[0]["prompt_tokens"] + expected[2]["prompt_tokens"]
    assert made.usage.completion_tokens == sum(one["completion_tokens"] for one in expected)

    chunks = list(client.completions.create(model=writer, stream=True, stream_options={"include_usage": True}, **asked))
    assert len({chunk.id for chunk in chunks}) == 1
    told = [choice for chunk in chunks for choice in chunk.choices]
    for one in made.choices:
        mine = [choice for choice in told if choice.index == one.index]
        assert "".join(choice.text for choice in mine) == one.text
        assert [choice.finish_reason for choice in mine if choice.finish_reason] == [one.finish_reason]
    assert chunks[-1].usage == made.usage
    assert chunks[-1].choices == []


def test_a_stream_comes_in_pieces_and_can_be_left(client: OpenAI, api: httpx.Client, writer: str) -> None:
    with client.completions.create(model=writer, prompt="a", max_tokens=400, stream=True, seed=1) as stream:
        texts = [chunk.choices[0].text for chunk in stream]
    assert len(texts) > 5
    assert "".join(texts) == native(api, "a", max_new_tokens=400, temperature=1.0, seed=1)["text"]
    with client.completions.create(model=writer, prompt="a", max_tokens=500, stream=True, seed=1) as stream:
        next(iter(stream))
    wait_until(lambda: sum(entry["in_use"] for entry in api.get("/models:loaded").json()["data"]) == 0, 10)


@pytest.mark.parametrize(
    ("asked", "error", "said"),
    [
        ({"model": "nobody"}, openai.NotFoundError, "nobody"),
        ({"model": "talks-not"}, openai.BadRequestError, "does not write texts"),
        (
            {"model": "talks-not", "stream": True},
            openai.UnprocessableEntityError,
            "writes neither texts nor transcripts",
        ),
        ({"prompt": []}, openai.BadRequestError, "prompt is empty"),
        ({"prompt": [1, 2]}, openai.UnprocessableEntityError, "prompt"),
        ({"echo": True}, openai.UnprocessableEntityError, "echo"),
        ({"max_tokens": 0}, openai.UnprocessableEntityError, "max_tokens"),
        ({"stop": [""]}, openai.UnprocessableEntityError, "stop"),
        ({"logprobs": 2, "stream": True}, openai.UnprocessableEntityError, "logprobs"),
        ({"best_of": 3}, openai.UnprocessableEntityError, "best_of"),
        ({"extra_body": {"beams": 2}}, openai.UnprocessableEntityError, "beams"),
    ],
)
def test_errors(
    client: OpenAI, writer: str, asked: dict[str, Any], error: type[openai.APIStatusError], said: str
) -> None:
    with pytest.raises(error) as caught:
        client.completions.create(**{"model": writer, "prompt": "a", **asked})
    assert said in caught.value.message
    assert caught.value.type == "invalid_request_error"


def test_a_deadline_within_a_stream_is_raised(client: OpenAI, stack: Stack) -> None:
    register_writer(stack, "talks-long", layers=4, width=256, max_length=8_192)
    headers = {"X-Request-Timeout": "1.5"}
    stream = client.completions.create(
        model="talks-long", prompt="a", max_tokens=8_000, stream=True, extra_headers=headers
    )
    with pytest.raises(openai.APIError, match=r"within the 1\.5 s"):
        assert sum(1 for _ in stream) > 0


def test_a_batch_of_completions(client: OpenAI, api: httpx.Client, writer: str) -> None:
    asked: list[dict[str, Any]] = [
        {"prompt": "where is", "max_tokens": 9, **DRAWN},
        {"prompt": ["a", "b"], "n": 2, "max_tokens": 5, "seed": 4},
    ]
    lines = [
        {"custom_id": f"r{n}", "method": "POST", "url": "/v1/completions", "body": {"model": writer, **body}}
        for n, body in enumerate(asked)
    ]
    file = client.files.create(file=("b.jsonl", "\n".join(map(json.dumps, lines)).encode()), purpose="batch")
    batch = client.batches.create(input_file_id=file.id, endpoint="/v1/completions", completion_window="24h")
    done = wait_until(lambda: (b := client.batches.retrieve(batch.id)).status == "completed" and b, 60)
    assert (done.request_counts.total, done.request_counts.completed, done.error_file_id) == (2, 2, None)
    answers = [json.loads(line) for line in client.files.content(done.output_file_id).text.splitlines()]
    assert [answer["custom_id"] for answer in answers] == ["r0", "r1"]
    for body, answer in zip(asked, answers, strict=True):
        direct = client.completions.create(model=writer, **body).model_dump()
        theirs = answer["response"]["body"]
        assert theirs["choices"] == direct["choices"]
        assert {name: theirs["usage"][name] for name in theirs["usage"]}.items() <= direct["usage"].items()
    for body, said in (
        ({"model": writer, "prompt": "a", "stream": 7}, "Line 1"),
        ({"model": "talks-not", "prompt": "a"}, "does not write texts"),
    ):
        line = {**lines[0], "body": body}
        wrong = client.files.create(file=("b.jsonl", json.dumps(line).encode()), purpose="batch")
        with pytest.raises(openai.BadRequestError, match=said):
            client.batches.create(input_file_id=wrong.id, endpoint="/v1/completions", completion_window="24h")


def test_hugging_face(stack: Stack, api: httpx.Client, writer: str) -> None:
    there = hugging_face(stack, writer)
    greedy = native(api, "where is", max_new_tokens=20)["text"]
    assert there.text_generation("where is", max_new_tokens=20) == greedy
    assert there.text_generation("where is", max_new_tokens=20, return_full_text=True) == "where is" + greedy
    drawn = native(api, "where is", max_new_tokens=20, **DRAWN)["text"]
    assert there.text_generation("where is", max_new_tokens=20, **DRAWN) == drawn
    assert there.text_generation("where is", max_new_tokens=20, do_sample=False, **DRAWN) == greedy
    free = native(api, "where is", max_new_tokens=20, temperature=1.0, seed=2)["text"]
    assert there.text_generation("where is", max_new_tokens=20, do_sample=True, seed=2) == free
    detailed = there.text_generation("where is", max_new_tokens=20, stop=[greedy[3:5]], details=True)
    assert detailed.generated_text == greedy[: greedy.index(greedy[3:5])]
    assert detailed.details is not None
    assert detailed.details.finish_reason == "stop_sequence"

    # Many: those that are written in one turn of the device come together.
    pieces = list(there.text_generation("今天", max_new_tokens=400, stream=True, **DRAWN))
    assert len(pieces) > 5
    assert "".join(pieces) == native(api, "今天", max_new_tokens=400, **DRAWN)["text"]
    *_, last = there.text_generation("今天", max_new_tokens=400, stream=True, details=True, **DRAWN)
    assert last.generated_text == "".join(pieces)
    assert last.details is not None
    assert (last.details.finish_reason, last.details.generated_tokens) == ("length", 400)


def test_hugging_face_errors(stack: Stack, writer: str) -> None:
    for options, said in (({"typical_p": 0.5}, "typical_p"), ({"top_p": 7.0}, "top_p")):
        with pytest.raises((HfHubHTTPError, TextGenerationError), match=said):
            hugging_face(stack, writer).text_generation("a", **options)  # type: ignore[call-overload]
    with pytest.raises((HfHubHTTPError, TextGenerationError), match="writes neither texts nor transcripts"):
        list(hugging_face(stack, "talks-not").text_generation("a", stream=True))
