"""What is read alike of the `parameters` of every task of `InferenceClient`."""

from __future__ import annotations

from typing import Any, ClassVar, Self

from pydantic import ValidationError

from service.errors import ApiError
from service.job_requests import Request


class Parameters(Request):
    """A task's parameters; `known` is what the hint says of those there are."""

    known: ClassVar[str]

    @classmethod
    def read(cls, parameters: dict[str, Any]) -> Self:
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
                hint=f"Known parameters: {cls.known}.",
                param=f"parameters.{where}",
            ) from None
