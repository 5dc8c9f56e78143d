"""What a move's child does: embed a gallery's samples by another version, and hand embeddings over now and then."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from learning import device
from learning.errors import InvalidInput
from learning.prediction import Predictor
from workers.child import Channel
from workers.row_clock import Clock

BLOCK_SAMPLES = 64
_MOST_AT_ONCE = 4_096  # embeddings that are handed over, and kept in one transaction


def run_move(channel: Channel) -> bool:
    """Embed what is assigned; returns False when stopped on request, with all that was embedded handed over."""
    given, spec = channel.assignment, channel.assignment.spec
    channel.send("progress", phase="preparing", fraction=0.0)
    samples: list[dict[str, str]] = json.loads(Path(given.files["samples"]).read_bytes())
    predictor = Predictor(Path(given.base or ""))
    device.pin(0, spec["threads"], predictor.network)
    resolved = {name: value for name, value in spec.items() if name != "embedded"}
    channel.send("resolved", environment=device.describe(device.choose_device("cpu")), spec=resolved)
    clock = Clock(channel, "embedding", spec["embedded"] + len(samples), spec["embedded"], spec["checkpoint_every_s"])
    clock.tell(0)
    made: dict[str, str] = {}
    for start in range(0, len(samples), BLOCK_SAMPLES):
        made |= _embedded(predictor, samples[start : start + BLOCK_SAMPLES], spec["ref"])
        done = min(start + BLOCK_SAMPLES, len(samples))
        stops = channel.stop_requested and done < len(samples)
        if stops or clock.is_due(done) or done == len(samples) or len(made) >= _MOST_AT_ONCE:
            _hand_over(channel, made, done)
            made = {}
            clock.rest()
        if stops:
            return False
    channel.send("result", files={})
    return True


def _embedded(predictor: Predictor, some: Sequence[dict[str, str]], ref: str) -> dict[str, str]:
    """Return embeddings by sample, in base64; a file that is gone went with its sample, or is missed later."""
    read = [(one, content) for one in some if (content := _content(Path(one["path"]))) is not None]
    parsed = predictor.parse([content for _, content in read])
    if parsed.errors:
        raise _unreadable(parsed.errors[0], read[parsed.errors[0].index][0], ref)
    answers = predictor.embed(parsed.rows) if parsed.rows else []
    return {
        one["sample"]: base64.b64encode(np.array(answer["embedding"], dtype="<f4").tobytes()).decode()
        for (one, _), answer in zip(read, answers, strict=True)
    }


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _unreadable(error: InvalidInput, one: dict[str, str], ref: str) -> InvalidInput:
    return InvalidInput(
        # No name: who is forgotten later must not go on standing in a job's error.
        f"{ref} cannot read the sample {one['sample']} of the subject {one['subject']}: "
        f"{error.message.split(': ', 1)[-1]}",
        index=error.index,
        hint="Delete that subject and enrol it by other files, or choose another version.",
        param="model",
    )


def _hand_over(channel: Channel, made: dict[str, str], number: int) -> None:
    path = Path(channel.assignment.directory) / f"embeddings-{number}.json"
    path.write_text(json.dumps(made))
    channel.send("embeddings", file=path.name)
