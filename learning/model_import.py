"""From a foreign model's files to a model directory's design and weights: gathered, checked, read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from learning import foreign
from learning.config import described
from learning.errors import IncompatibleModel, InvalidModel
from learning.foreign_weights import check, read, stored
from learning.formats.format import ignore_progress
from learning.model import CONFIG_FILE, Design, names_here
from learning.model_files import gather, read_object
from learning.undrawn import undrawn

_SEED = 0  # of a head that begins afresh: the same files give the same model
OURS = "anneal"
_SAME = "Send the one that was saved with the weights."


@dataclass(frozen=True, slots=True)
class Imported:
    """A model that fits: its design, every weight of its network, what it said it was, and what to warn about."""

    design: Design
    weights: dict[str, Tensor]
    model_type: str
    warnings: list[str] = field(default_factory=list)


def import_model(
    source: Path,
    filename: str,
    work: Path,
    root: Path | None = None,
    report: Callable[[str, float], None] = ignore_progress,
) -> Imported:
    """Return the model in a zip archive or a folder, in the layout of Transformers or as it was downloaded here.

    `work` is an empty directory; no file outside of `root` is read. `report` gets each phase with the fraction of all
    that is done. Raises InvalidModel, and knows no other reason to refuse a file.
    """
    try:
        report("unpacking", 0.0)
        warnings = gather(source, filename, work, root)
        report("checking", 0.4)
        config = _config(work)
        ours = "format_version" in config
        found = _own(work, config) if ours else _theirs(work, config)
    except InvalidModel:
        raise
    except IncompatibleModel as error:
        raise InvalidModel(error.message, hint=error.hint) from None
    except ValidationError as error:
        raise InvalidModel(f"{CONFIG_FILE}: {described(error)}") from None
    except KeyError as error:
        raise InvalidModel(
            f"{CONFIG_FILE} has no {error}.", hint="Send the one that was saved with the weights."
        ) from None
    except (TypeError, ValueError, AttributeError, LookupError, ArithmeticError, RuntimeError, AssertionError) as error:
        raise InvalidModel(f"{CONFIG_FILE} does not describe a model: {error}") from None
    model_type = OURS if ours else str(config["model_type"])
    return Imported(found.design, found.weights, model_type, [*warnings, *found.remarks])


def _config(directory: Path) -> dict[str, Any]:
    config = read_object(directory / CONFIG_FILE)
    if "format_version" not in config and not isinstance(config.get("model_type"), str):
        raise InvalidModel(f"{CONFIG_FILE} names no model_type.", hint=_SAME)
    return config


def _own(directory: Path, config: dict[str, Any]) -> foreign.Foreign:
    """Return a model that was downloaded from a service like this one."""
    design = Design.from_dict(config)
    if design.low_rank is not None:
        raise InvalidModel("The model has low-rank additions that were not merged.", hint="Download a version of it.")
    with undrawn():
        wanted = design.build().state_dict()
    names = names_here(design)
    found = stored(directory, lambda name: names.get(name, name))
    check(found, wanted)
    return foreign.Foreign(design, read(found, list(wanted)), [], 0)


def _theirs(directory: Path, config: dict[str, Any]) -> foreign.Foreign:
    """Return a model that Transformers saved, with a fresh head unless the weights have one."""
    found = foreign.read(directory, config)
    torch.manual_seed(_SEED)
    head = found.design.task.head(found.width, found.design.targets).state_dict()
    fresh = {f"head.{name}": tensor for name, tensor in head.items()}
    return found._replace(weights={**fresh, **found.weights})
