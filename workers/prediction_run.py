"""What a prediction job's child does: answer for every row, keep what is answered now and then, write one file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import orjson

from learning import device, prediction_files
from learning.data import open_table
from learning.dataset_prediction import DatasetPrediction, ListedRows, Operation, Rows, Segment, TableRows
from learning.errors import InvalidData
from learning.prediction import Predictor
from workers.child import Channel
from workers.row_clock import Clock


def run_prediction(channel: Channel) -> bool:
    """Answer for what is assigned; returns False when stopped on request, with all that was answered kept."""
    given, spec = channel.assignment, channel.assignment.spec
    channel.send("progress", phase="preparing", fraction=0.0)
    predictor = Predictor(Path(given.base or ""))
    device.pin(0, spec["threads"], predictor.network)
    channel.send("resolved", environment=device.describe(device.choose_device("cpu")), spec=spec)
    directory = Path(given.directory) / "segments"
    directory.mkdir()
    rows = _rows(channel, predictor)
    segments = [Segment.at(path) for folder in given.resume.values() for path in Path(folder).glob("*.jsonl")]
    answered = sum(one.stop - one.start for one in segments)
    clock = Clock(channel, "predicting", rows.count, answered, spec["checkpoint_every_s"])
    clock.tell(0)
    operation = Operation.named(spec["operation"], predictor, spec["parameters"])
    for segment in DatasetPrediction(operation, rows, directory).run(segments, clock.is_due):
        segments.append(segment)
        _publish(channel, segment)
        clock.rest()
        if channel.stop_requested:
            return False
    _finish(channel, operation, rows, sorted(segments))
    return True


def _rows(channel: Channel, predictor: Predictor) -> Rows:
    given, spec = channel.assignment, channel.assignment.spec
    if "inputs" in given.files:
        return ListedRows(orjson.loads(Path(given.files["inputs"]).read_bytes()))
    return TableRows(open_table(Path(given.files["rows"])), predictor.design, spec["text"], spec["keep"])


def _publish(channel: Channel, segment: Segment) -> None:
    # Under another name: what is published is deleted here, and the segment is needed once more at the end.
    published = segment.path.parent / "published"
    published.mkdir(exist_ok=True)
    link = published / segment.name
    os.link(segment.path, link)
    channel.send(
        "checkpoint",
        run=f"rows-{segment.start}",
        step=segment.stop,
        finished=False,
        score=None,
        metrics={},
        files=[str(link.relative_to(channel.assignment.directory))],
    )


def _finish(channel: Channel, operation: Operation, rows: Rows, segments: list[Segment]) -> None:
    spec = channel.assignment.spec
    errors = sum(segment.errors for segment in segments)
    first = _first_error(segments) if errors else None
    if first is not None and errors == rows.count and isinstance(rows, TableRows):
        raise InvalidData(f"None of the {errors} rows fits the model. {first['message']}", hint=first["hint"])
    path = Path(channel.assignment.directory) / f"output.{spec['format']}"
    kept = rows.kept_schema if isinstance(rows, TableRows) else None
    prediction_files.write(spec["format"], [one.path for one in segments], path, operation.schema, kept)
    channel.send(
        "result",
        files={"output": str(path)},
        format=spec["format"],
        rows=rows.count,
        errors=errors,
        warnings=[f"{errors} of {rows.count} rows have an error instead of an answer. {first['message']}"]
        if first is not None
        else [],
    )


def _first_error(segments: list[Segment]) -> dict[str, Any] | None:
    for segment in segments:
        if segment.errors:
            with segment.path.open("rb") as file:
                for line in file:
                    if (error := orjson.loads(line)["error"]) is not None:
                        found: dict[str, Any] = error
                        return found
    return None
