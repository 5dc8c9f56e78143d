"""What `InferenceClient.translation` asks and expects."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from service.huggingface_parameters import Parameters
from service.job_requests import Request


class Generating(Request):
    """How a translation is looked for, by Transformers' names."""

    num_beams: int | None = None
    length_penalty: float | None = None
    max_new_tokens: int | None = None


class TranslationParameters(Parameters):
    """How a text is translated: by Transformers' names, or by those of predict. A model has one direction."""

    known: ClassVar[str] = "generate_parameters (num_beams, length_penalty, max_new_tokens)"

    generate_parameters: Generating = Generating()
    beam_width: int | None = None
    length_penalty: float | None = None
    max_new_tokens: int | None = None
    clean_up_tokenization_spaces: bool | None = Field(None, description="Of no effect: there are none too many.")
    src_lang: None = Field(None, description="Only null: a model translates what it has learned from.")
    tgt_lang: None = Field(None, description="Only null.")
    truncation: None = Field(None, description="Only null: what is too long is cut.")

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
