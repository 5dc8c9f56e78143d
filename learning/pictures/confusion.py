"""What was taken for what: the confusion matrix as a picture; C classes, M of them shown."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from learning.pictures.svg import BLACK, GREY, LIGHT, SMALL, TEXT, WHITE, Drawing, width_of

Counts = NDArray[np.int64]

_MOST = 30
_CELL, _SMALL_CELL = 44.0, 26.0
_MANY = 15  # with more classes cells are small
_LABEL_ROOM = 150.0
_TOP, _EDGE, _BESIDE = 58.0, 16.0, 96.0
_RIGHT, _WRONG = (0, 114, 178), (213, 94, 0)


def confusion_picture(labels: Sequence[str], counts_CC: Counts, part: str, of: str = "rows") -> str:
    """Return the matrix as SVG: a row for each true class, a column for each predicted one, with recall at the side.

    Of more than 30 classes the 29 with most mistakes are shown, and the others together. `of` is what is counted.
    """
    names, counts_MM = _shown(labels, counts_CC)
    cell = _CELL if len(names) <= _MANY else _SMALL_CELL
    font = TEXT if cell == _CELL else SMALL
    room = min(_LABEL_ROOM, max(width_of(name, font) for name in names) + 6)
    left, top, side = _EDGE + 18 + room, _TOP + 18 + room, cell * len(names)
    total, right = int(counts_CC.sum()), int(counts_CC.trace())
    width = max(left + side + _BESIDE, 420.0)
    drawing = Drawing(width, top + side + _EDGE, f"Confusion matrix of {total} {part} {of}")
    drawing.text(_EDGE, 24, "Confusion matrix", size=16, bold=True)
    few = "" if len(names) == len(labels) else f"; the {len(names) - 1} classes with most mistakes of {len(labels)}"
    share = right / max(1, total)
    drawing.text(_EDGE, 42, f"{right} of {total} {part} {of} right, {share:.1%}{few}", colour=GREY, room=width - 32)
    drawing.text(left + side / 2, _TOP + 12, "predicted", colour=GREY, anchor="middle")
    drawing.text(_EDGE + 10, top + side / 2, "true", colour=GREY, anchor="middle", turned=-90)
    drawing.text(left + side + 8, top - 6, "recall", size=SMALL, colour=GREY)
    for place, name in enumerate(names):
        middle = (place + 0.5) * cell
        drawing.text(left - 6, top + middle + font / 3, name, size=font, anchor="end", room=room)
        drawing.text(left + middle + font / 3, top - 6, name, size=font, room=room, turned=-90)
    for row, counts_M in enumerate(counts_MM):
        about = f"{names[row]} taken for "
        cells = [(count, names[column], column == row) for column, count in enumerate(counts_M.tolist())]
        _draw_row(drawing, (left, top + row * cell), cell, cells, about)
    drawing.rectangle(left, top, side, side, line=GREY)
    return drawing.written()


def _shown(labels: Sequence[str], counts_CC: Counts) -> tuple[list[str], Counts]:
    """Return the classes that there is room for, the last of them all others together, and their counts."""
    if len(labels) <= _MOST:
        return list(labels), counts_CC
    wrong_CC = counts_CC - np.diag(np.diag(counts_CC))
    kept = np.sort(np.argsort(-(wrong_CC.sum(0) + wrong_CC.sum(1)), kind="stable")[: _MOST - 1])
    group_C = np.full(len(labels), len(kept))
    group_C[kept] = np.arange(len(kept))
    counts_MM = np.zeros((_MOST, _MOST), dtype=np.int64)
    np.add.at(counts_MM, (group_C[:, None], group_C[None, :]), counts_CC)
    return [*(labels[place] for place in kept), f"{len(labels) - len(kept)} others"], counts_MM


def _draw_row(
    drawing: Drawing, at: tuple[float, float], cell: float, cells: Sequence[tuple[int, str, bool]], about: str
) -> None:
    """Draw a class's cells: of each how many rows it has, what they were taken for, and whether that is right."""
    left, top = at
    total = sum(count for count, _, _ in cells)
    font = SMALL if cell == _CELL else 8.0
    for column, (count, name, is_right) in enumerate(cells):
        share = count / total if total else 0.0
        fill = _mixed(_RIGHT if is_right else _WRONG, share) if count else WHITE
        x, said = left + column * cell, f"{about}{name}: {count} of {total}, {share:.1%}"
        drawing.rectangle(x, top, cell, cell, fill=fill, line=LIGHT, thick=0.5, about=said if count else None)
        if count:
            colour = WHITE if share > 0.55 else BLACK
            middle = (x + cell / 2, top + cell / 2 + font / 3)
            drawing.text(*middle, _short(count), size=font, colour=colour, anchor="middle")
    right = sum(count for count, _, is_right in cells if is_right)
    said = f"{right / total:.1%} of {_short(total)}" if total else "no rows"
    drawing.text(left + len(cells) * cell + 8, top + cell / 2 + SMALL / 3, said, size=SMALL, colour=GREY)


def _mixed(colour: tuple[int, int, int], share: float) -> str:
    """Return a colour as strong as its share, and no weaker than can be seen."""
    strength = 0.12 + 0.88 * share
    return "#" + "".join(f"{round(255 + (part - 255) * strength):02x}" for part in colour)


def _short(count: int) -> str:
    for size, sign in ((1_000_000, "M"), (10_000, "k")):
        if count >= size:
            return f"{count / (1_000 if sign == 'k' else size):.3g}{sign}"
    return str(count)
