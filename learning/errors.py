"""What can go wrong with what a caller gave, named by what went wrong and where."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class LearningError(Exception):
    """A caller's mistake: never retried, always explained.

    `message` says what, where and the value; `hint` says the fix; `param` names the request's field. `description` is
    what is known of an uploaded file that is refused, as JSON.
    """

    code = "learning_error"

    def __init__(self, message: str, *, hint: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.param = param
        self.description: dict[str, Any] = {}

    def to_dict(self) -> dict[str, Any]:
        """The error as the JSON a job's row and a problem document carry."""
        return {
            "code": self.code,
            "message": self.message,
            "hint": self.hint,
            "param": self.param,
            "retryable": False,
        }


class InvalidConfig(LearningError):
    """A hyperparameter or option is out of range or does not fit the others."""

    code = "invalid_config"


class UnknownName(LearningError):
    """A task, architecture, format or column that does not exist."""

    code = "unknown_name"


class InvalidData(LearningError):
    """The examples cannot be learned from: one class, no rows, a target that is not a number."""

    code = "invalid_data"


class InvalidRow(InvalidData):
    """One example cannot be learned from; `said` goes on where "Row 7" ends.

    `row` counts from 0, the message from 1.
    """

    def __init__(self, row: int, said: str, *, hint: str | None = None, param: str | None = None) -> None:
        super().__init__(f"Row {row + 1}{said}", hint=hint, param=param)
        self.row = row
        self.said = said


@contextmanager
def rows_from(numbers: Sequence[int] | NDArray[np.int64] | None) -> Iterator[None]:
    """Name the row that a caller knows where only some of the rows are at hand; None: all of them are."""
    try:
        yield
    except InvalidRow as error:
        if numbers is None:
            raise
        raise InvalidRow(int(numbers[error.row]), error.said, hint=error.hint, param=error.param) from None


class IncompatibleModel(LearningError):
    """The base model does not fit the job: another modality, architecture or other columns."""

    code = "incompatible_model"


class InvalidModel(IncompatibleModel):
    """A foreign model's files cannot become a model: a pickle, a tensor that is missing, a damaged archive."""

    code = "invalid_model"


class InvalidInput(LearningError):
    """One prediction input cannot be encoded: a missing column, a value of the wrong type."""

    code = "invalid_input"

    def __init__(self, message: str, *, index: int, hint: str | None = None, param: str | None = None) -> None:
        super().__init__(message, hint=hint, param=param)
        self.index = index


class EmptyInput(InvalidInput):
    """One input of a gallery holds nobody: a recording of silence, which is as near to any other as can be."""

    code = "empty_input"


class CorruptCheckpoint(LearningError):
    """A checkpoint's bytes do not match its checksums."""

    code = "corrupt_checkpoint"


@dataclass(frozen=True, slots=True)
class RowError:
    """One wrong place in an uploaded file.

    `row` counts records from 1 without the header, as a table's reader would; `None` is the file as a whole.
    """

    rule: str
    message: str
    remedy: str
    file: str | None = None
    row: int | None = None
    column: str | None = None
    value: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The error as JSON."""
        return asdict(self)


class InvalidDataset(LearningError):
    """An uploaded file that cannot become a dataset; carries every error found, not only the first."""

    code = "invalid_dataset"

    def __init__(
        self,
        message: str,
        errors: list[RowError],
        *,
        error_count: int,
        errors_by_rule: Mapping[str, int],
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.errors = errors
        self.error_count = error_count
        self.errors_by_rule = dict(errors_by_rule)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ' Did you mean "x"?' when a known name is close to the given one, else ''."""
    names = list(known)
    folded = {candidate.casefold(): candidate for candidate in names}
    match = folded.get(name.casefold())
    close = [match] if match else difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    return f' Did you mean "{close[0]}"?' if close else ""
