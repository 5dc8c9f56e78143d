"""Routes that stand beside another of the same path, for requests whose headers ask for them."""

from __future__ import annotations

from fastapi.routing import APIRoute
from starlette.datastructures import Headers
from starlette.routing import Match
from starlette.types import Scope


class ChosenRoute(APIRoute):
    """A route that only some requests are for; to be included before the one for the others."""

    @staticmethod
    def is_for(headers: Headers) -> bool:
        """Return whether the request is meant by its headers."""
        raise NotImplementedError

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Match by path and method, and by what the headers say."""
        match, child = super().matches(scope)
        if match is Match.FULL and self.is_for(Headers(scope=scope)):
            return match, child
        return Match.NONE, {}


def media_type(headers: Headers) -> str:
    """Return the content type without its options."""
    return headers.get("content-type", "").partition(";")[0].strip().lower()
