"""What `InferenceClient.translation` asks and expects."""

from __future__ import annotations

from typing import Any

from pydantic import Field, ValidationError

from service.errors import ApiError
from service.job_requests import Request


class Generating(Request):
    """How a translation is looked for, by Transformers' names."""

    num_beams: int | None = None
    length_penalty: float | None = None
    max_new_tokens: int | None = None


class TranslationParameters(Request):
    """How a text is translated: by Transformers' names, or by those of predict. A model has one direction."""

    generate_parameters: Generating = Generating()
    beam_width: int | None = None
    length_penalty: float | None = None
    max_new_tokens: int | None = None
    clean_up_tokenization_spaces: bool | None = Field(None, description="Of no effect: there are none too many.")
    src_lang: None = Field(None, description="Only null: a model translates what it has learned from.")
    tgt_lang: None = Field(None, description="Only null.")
    truncation: None = Field(None, description="Only null: what is too long is cut.")

    @classmethod
    def read(cls, parameters: dict[str, Any]) -> TranslationParameters:
        """Return checked parameters; 422 names the one that is not known or cannot be had."""
        try:
            return cls.model_validate(parameters)
        except ValidationError as error:
            found = error.errors()[0]
            where = ".".join(map(str, found["loc"]))
            raise ApiError(
                422,
                "invalid_request",
                f"parameters.{where}: {found['msg']}.",
                hint="Known parameters: generate_parameters (num_beams, length_penalty, max_new_tokens).",
                param=f"parameters.{where}",
            ) from None

    def native(self) -> dict[str, Any]:
        """Return what predict calls these parameters."""
        asked = {
            "beam_width": self.beam_width,
            "length_penalty": self.length_penalty,
            "max_new_tokens": self.max_new_tokens,
        }
        theirs = {
            "beam_width": self.generate_parameters.num_beams,
            "length_penalty": self.generate_parameters.length_penalty,
            "max_new_tokens": self.generate_parameters.max_new_tokens,
        }
        # One that is 0 was asked for, too.
        asked |= {name: value for name, value in theirs.items() if value is not None}
        return {name: value for name, value in asked.items() if value is not None}
