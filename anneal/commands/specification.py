"""A job's request, put together from a JSON file and options."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer


def job_spec(
    file: str | None,
    options: Mapping[str, Any],
    *,
    datasets: Sequence[str],
    targets: Sequence[str],
    model: str | None,
    hyperparameters: Sequence[str],
    max_runtime_s: float | None = None,
) -> dict[str, Any]:
    """Return the request's body; raise BadParameter naming the option at fault."""
    spec = read_json(file) if file else {}
    spec |= {name: value for name, value in options.items() if value is not None}
    if datasets:
        spec["dataset"] = dataset_field(datasets)
    if targets:
        named = {"target": targets[0]} if len(targets) == 1 else {"targets": list(targets)}
        spec["columns"] = _section(spec, "columns") | named
    if model:
        spec["output"] = _section(spec, "output") | {"model": model}
    if hyperparameters:
        chosen = dict(assignment(text) for text in hyperparameters)
        spec["hyperparameters"] = _section(spec, "hyperparameters") | chosen
    if max_runtime_s is not None:
        spec["resources"] = _section(spec, "resources") | {"max_runtime_s": max_runtime_s}
    missing = [f"--{name}" for name in ("kind", "dataset") if name not in spec]
    if missing:
        raise typer.BadParameter(f"A job needs a JSON file or {' and '.join(missing)}.", param_hint="submit")
    return spec


def _section(spec: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the part of the request that options are added to; raise BadParameter when it can take none."""
    section = spec.get(name)
    if section is not None and not isinstance(section, dict):
        raise typer.BadParameter(f'"{name}" is {json.dumps(section)[:80]}, not a JSON object.', param_hint="FILE")
    return section or {}


def read_json(file: str) -> dict[str, Any]:
    """Read a JSON object from a file, or from stdin for "-"."""
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
        value = json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise typer.BadParameter(f"{file}: {error}", param_hint="FILE") from error
    if not isinstance(value, dict):
        raise typer.BadParameter(f"{file} does not hold a JSON object.", param_hint="FILE")
    return value


def dataset_field(datasets: Sequence[str]) -> str | dict[str, str]:
    """Turn `ds_1`, or `train=ds_1 test=ds_2`, into the request's field."""
    if len(datasets) == 1 and "=" not in datasets[0]:
        return datasets[0]
    roles = {}
    for text in datasets:
        role, equals, dataset_id = text.partition("=")
        if not equals:
            raise typer.BadParameter(
                f'"{text}" has no role. With several datasets, write train={text}.', param_hint="--dataset"
            )
        roles[role] = dataset_id
    return roles


def assignment(text: str, option: str = "--set") -> tuple[str, Any]:
    """Turn `learning_rate=0.01` into its name and JSON value; what is not JSON is text."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise typer.BadParameter(f'"{text}" is not of the form name=value.', param_hint=option)
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value
