"""Lists: one page of objects, and the way to the following ones."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, TypeVar

from anneal.transport import Transport

T = TypeVar("T")


class Page(Generic[T]):
    """One page of a list, newest first unless asked otherwise; iterate it, or `all()` for every page."""

    def __init__(self, answer: Mapping[str, Any], make: Callable[[dict[str, Any]], T], following: Any) -> None:
        self._answer = answer
        self._following = following
        self.data: list[T] = [make(item) for item in answer["data"]]
        self.has_more: bool = bool(answer.get("has_more"))

    def all(self) -> Iterator[T]:
        """Iterate over this page and, asking as it goes, every page after it."""
        page: Page[T] = self
        while True:
            yield from page.data
            if not page.has_more or not page.data:
                return
            page = page._following(page._answer["last_id"])

    def to_dict(self) -> dict[str, Any]:
        """Return the page's JSON as the service sent it."""
        return dict(self._answer)

    def __iter__(self) -> Iterator[T]:
        return iter(self.data)

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> T:
        return self.data[index]


def fetch_page(transport: Transport, path: str, make: Callable[[dict[str, Any]], T], **params: Any) -> Page[T]:
    """Ask for one page of the list at `path`; parameters that are None are left out."""
    asked = {name: value for name, value in params.items() if value is not None}

    def following(last_id: str) -> Page[T]:
        return fetch_page(transport, path, make, **{**asked, "after": last_id})

    return Page(transport.json("GET", path, params=asked), make, following)
