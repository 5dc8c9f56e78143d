"""What `InferenceClient.text_generation` asks and expects: the options of Text Generation Inference, by its names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import orjson
from pydantic import Field

from service.answer_stream import Streamed
from service.errors import ApiError
from service.huggingface_parameters import Parameters

# Those that change what is drawn: with one of them, and unless `do_sample` says no, texts are drawn.
_DRAWING = ("temperature", "top_k", "top_p")
_OURS = ("max_new_tokens", "temperature", "top_k", "top_p", "repetition_penalty", "seed", "stop")


class GenerationParameters(Parameters):
    """How a text goes on. What cannot be had may be there if it asks for nothing."""

    known: ClassVar[str] = f"{', '.join(_OURS)}, do_sample, return_full_text, details"

    max_new_tokens: int | None = None
    do_sample: bool | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    repetition_penalty: float | None = None
    seed: int | None = None
    stop: list[str] | None = None
    stop_sequences: list[str] | None = Field(None, description="An older name of stop.")
    return_full_text: bool | None = None
    details: bool | None = None
    best_of: Literal[1] | None = None
    decoder_input_details: Literal[False] | None = None
    watermark: Literal[False] | None = None
    frequency_penalty: Literal[0] | None = None
    adapter_id: None = None
    grammar: None = None
    top_n_tokens: None = None
    truncate: None = None
    typical_p: None = None

    def native(self) -> dict[str, Any]:
        """Return what predict calls these parameters."""
        asked = {name: value for name in _OURS if (value := getattr(self, name)) is not None}
        if stops := [*(self.stop or ()), *(self.stop_sequences or ())]:
            asked["stop"] = stops
        else:
            asked.pop("stop", None)
        if self.do_sample is False:
            asked["temperature"] = 0.0
        elif self.do_sample or any(name in asked for name in _DRAWING):
            asked.setdefault("temperature", 1.0)
        return asked

    def written(self, prompt: str, answer: dict[str, Any]) -> dict[str, Any]:
        """Return an answer as the client expects it."""
        text = prompt + answer["text"] if self.return_full_text else answer["text"]
        return {"generated_text": text, "details": self._details(answer) if self.details else None}

    def _details(self, answer: dict[str, Any]) -> dict[str, Any]:
        reason = answer["finish_reason"]
        if reason == "stop":  # for whichever cause
            reason = "stop_sequence" if self.stop or self.stop_sequences else "eos_token"
        return {
            "finish_reason": reason,
            "generated_tokens": answer["completion_tokens"],
            "seed": self.seed,
            "prefill": [],
            "tokens": [],
        }


class TokenEvents:
    """The events of a streamed text. A token's text is a piece of whole characters, which may be of several tokens."""

    def __init__(self, asked: GenerationParameters, prompt: str) -> None:
        self._asked, self._prompt = asked, prompt
        self._count = 0

    def text(self, index: int, text: str) -> bytes:
        """Return what is new."""
        return self._event(text, None)

    def end(self, streamed: Streamed) -> bytes:
        """Return the whole text."""
        whole = self._asked.written(self._prompt, streamed.answers[0])
        return self._event("", whole)

    def error(self, problem: bytes) -> bytes:
        """Return what went wrong, which the client raises."""
        told = {**orjson.loads(problem), "error_type": "generation"}
        return b"data: %s\n\n" % orjson.dumps(told)

    def _event(self, text: str, whole: dict[str, Any] | None) -> bytes:
        self._count += 1
        token = {"id": -1, "text": text, "logprob": None, "special": whole is not None}
        about = whole or {"generated_text": None, "details": None}
        return b"data: %s\n\n" % orjson.dumps({"index": self._count, "token": token, **about})


def only_prompt(inputs: Sequence[Any]) -> str:
    """Return the one text that a stream goes on from."""
    if len(inputs) != 1 or not isinstance(inputs[0], str):
        raise ApiError(
            400, "invalid_request", "A stream goes on from one text.", hint='Send {"inputs": "..."}.', param="inputs"
        )
    return inputs[0]
