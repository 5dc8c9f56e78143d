"""Sheets of a model's worst mistakes: images as small ones, recordings as their spectrograms."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.nn import functional

from learning import images, spectrograms
from learning.capabilities import PartRows, Picture
from learning.media_types import FILE_COLUMNS
from learning.modalities import MODALITIES
from learning.modalities.audio import AudioState
from learning.modalities.image import ImageState
from learning.pictures.sheet import ASIDE, MEANT, MISTAKEN, Tile, percent, sheet_picture
from learning.tasks.score_pictures import rows_of, worst
from learning.transcripts import distance

MOST_IMAGES, MOST_SOUNDS = 24, 12
Line = tuple[str, str]
Numbered = tuple[int, dict[str, Any]]

_NAME, _TITLE = "mistakes", "Worst mistakes"
_IMAGE_FRAME, _SOUND_FRAME = (132.0, 132.0), (250.0, 90.0)
_LARGER = 1.6  # pixels to one of the picture, for screens that have them
_FRAMES = 500
_MOST_LABELS = 3


@dataclass(frozen=True, slots=True)
class Mistakes:
    """The worst of some mistakes: where they are in a part, the lines to write below each, and of how many they are."""

    places: Sequence[int]
    lines: Sequence[Sequence[Line]]
    said: str

    @classmethod
    def of(cls, places: Sequence[int], lines: Sequence[Sequence[Line]], wrong: int, rows: str) -> Mistakes:
        """Return mistakes with the words for how many there are in all."""
        many = f"all {wrong} mistakes" if wrong > 1 else "the only mistake"
        return cls(places, lines, f"{f'{len(places)} of {wrong} mistakes' if wrong > len(places) else many} on {rows}")


def of_classes(probability_NC: Tensor, target_N: Tensor, labels: Sequence[str], part: str, most: int) -> Mistakes:
    """Return the rows whose class was thought least likely, and what they were taken for."""
    predicted_N, true_N1 = probability_NC.argmax(1), target_N.unsqueeze(1)
    places = worst(-probability_NC.gather(1, true_N1).squeeze(1), predicted_N != target_N, most)
    lines = []
    for place in places:
        taken, true = int(predicted_N[place]), int(target_N[place])
        share_C = probability_NC[place]
        lines.append([
            (f"{labels[taken]} {percent(float(share_C[taken]))}", MISTAKEN),
            (f"is {labels[true]}, {percent(float(share_C[true]))}", MEANT),
        ])  # fmt: skip
    return Mistakes.of(places, lines, int((predicted_N != target_N).sum()), rows_of(part, len(target_N)))


def of_labels(probability_NK: Tensor, has_NK: Tensor, labels: Sequence[str], threshold: float, part: str) -> Mistakes:
    """Return the rows whose labels were thought least likely together, and which of them are wrong and missed."""
    found_NK = probability_NK >= threshold
    is_wrong_N = (found_NK != has_NK).any(1)
    loss_NK = functional.binary_cross_entropy(probability_NK, has_NK.float(), reduction="none")
    places = worst(loss_NK.sum(1), is_wrong_N, MOST_IMAGES)
    lines = [_labels_said(probability_NK[place], found_NK[place], has_NK[place], labels) for place in places]
    return Mistakes.of(places, lines, int(is_wrong_N.sum()), rows_of(part, len(has_NK)))


def _labels_said(probability_K: Tensor, found_K: Tensor, has_K: Tensor, labels: Sequence[str]) -> list[Line]:
    """Return lines for the labels that are wrong, the worst first, and one for those that are right."""
    order = (probability_K - has_K.float()).abs().argsort(descending=True).tolist()
    wrong = [place for place in order if found_K[place] != has_K[place]]
    lines = [
        (f"{'missed' if has_K[place] else 'wrong'}: {labels[place]} {percent(float(probability_K[place]))}", MISTAKEN)
        for place in wrong[:_MOST_LABELS]
    ]
    if len(wrong) > _MOST_LABELS:
        lines[-1] = (f"and {len(wrong) - _MOST_LABELS + 1} more", MISTAKEN)
    right = [labels[place] for place in (found_K & has_K).nonzero().squeeze(1).tolist()]
    return [*lines, ("has " + ", ".join(right), MEANT)] if right else lines


def of_numbers(
    value_NK: Tensor, true_NK: Tensor, names: Sequence[str], deviations: Sequence[float], part: str
) -> Mistakes:
    """Return the rows whose numbers are farthest off, those of several columns counted in their deviations."""
    error_NK = (value_NK - true_NK) / true_NK.new_tensor(deviations)
    loss_N = error_NK.square().sum(1)
    places = worst(loss_N, loss_N > 0, MOST_IMAGES)
    lines = [_numbers_said(value_NK[place], true_NK[place], error_NK[place], names) for place in places]
    many = f"the {len(places)} largest errors" if len(places) > 1 else "the only error"
    return Mistakes(places, lines, f"{many} on {rows_of(part, len(true_NK))}")


def _numbers_said(value_K: Tensor, true_K: Tensor, error_K: Tensor, names: Sequence[str]) -> list[Line]:
    """Return what was said and what is so of one column, or a line for each of several, the worst first."""
    if len(names) == 1:
        return [(f"{float(value_K[0]):.6g}", MISTAKEN), (f"is {float(true_K[0]):.6g}", MEANT)]
    order = error_K.abs().argsort(descending=True, stable=True).tolist()
    lines = [
        (f"{names[place]}: {float(value_K[place]):.6g}, is {float(true_K[place]):.6g}", MISTAKEN)
        for place in order[:_MOST_LABELS]
    ]
    return [*lines, (f"and {len(order) - _MOST_LABELS} more", ASIDE)] if len(order) > _MOST_LABELS else lines


def of_transcripts(pairs: Sequence[tuple[str, str]], part: str) -> Mistakes:
    """Return the rows, of what is said and heard in each, whose characters have most errors by their number."""
    wrong = [place for place, (said, heard) in enumerate(pairs) if said != heard]
    rates = {place: distance(*pairs[place]) / max(1, len(pairs[place][0])) for place in wrong}
    places = sorted(wrong, key=lambda place: -rates[place])[:MOST_SOUNDS]
    lines = []
    for said, heard in (pairs[place] for place in places):
        lines.append([(f"heard: {heard or 'nothing'}", MISTAKEN), (f"said: {said}", MEANT)])
    return Mistakes.of(places, lines, len(wrong), rows_of(part, len(pairs)))


def of_images(mistakes: Mistakes, rows: PartRows, state: ImageState) -> Iterator[Picture]:
    """Yield the sheet of some images, if there are any."""
    tiles = [
        image_tile(numbered, state.column, lines, _IMAGE_FRAME)
        for numbered, lines in zip(rows.taken(mistakes.places), mistakes.lines, strict=True)
    ]
    if tiles:
        yield Picture(_NAME, sheet_picture(_TITLE, mistakes.said, tiles, frame=_IMAGE_FRAME, columns=6))


def of_sounds(mistakes: Mistakes, rows: PartRows, state: AudioState) -> Iterator[Picture]:
    """Yield the sheet of some recordings, if there are any."""
    tiles = [
        _sound_tile(numbered, state, lines)
        for numbered, lines in zip(rows.taken(mistakes.places), mistakes.lines, strict=True)
    ]
    if tiles:
        yield Picture(_NAME, sheet_picture(_TITLE, mistakes.said, tiles, frame=_SOUND_FRAME, columns=3))


def image_tile(numbered: Numbered, column: str, lines: Sequence[Line], frame: tuple[float, float], **more: Any) -> Tile:
    """Return a row's image, as small as its place on the sheet, with lines below and its row and file."""
    cell = numbered[1][column]
    width, height = cell["width"], cell["height"]
    content, sharp = images.small_file(cell["bytes"], width, height, round(_LARGER * max(frame)))
    return Tile(content, (width, height), [*lines, (named(numbered), ASIDE)], sharp=sharp, **more)


def _sound_tile(numbered: Numbered, state: AudioState, lines: Sequence[Line]) -> Tile:
    """Return a row's recording as a spectrogram, time to the right, with its row, file and length below."""
    cell = numbered[1][state.column]
    frame_TF = MODALITIES["audio"].parse(cell["bytes"], 0, state)[0].frame_TF
    if len(frame_TF) > _FRAMES:
        frame_TF = functional.adaptive_avg_pool1d(frame_TF.T, _FRAMES).T
    about = f"{cell['seconds']:.1f} s, {named(numbered)}"
    return Tile(spectrograms.picture(frame_TF), _SOUND_FRAME, [*lines, (about, ASIDE)])


def named(numbered: Numbered) -> str:
    """Return by what a row is found again: its number, and the name of its file."""
    number, row = numbered
    file = next((row[name] for name in FILE_COLUMNS if isinstance(row.get(name), str)), None)
    return f"row {number}" if file is None else f"row {number}, {file}"
