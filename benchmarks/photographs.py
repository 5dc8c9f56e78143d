"""Pictures that compress about as photographs do."""

from __future__ import annotations

import io
from typing import Any

import numpy as np


def photograph(generator: np.random.Generator, width: int, height: int, file_format: str, **options: Any) -> bytes:
    """Return a file of coarse shapes with some grain, about as large as a photograph's."""
    from PIL import Image as Pillow

    coarse = generator.integers(0, 256, (height // 16 + 1, width // 16 + 1, 3), dtype=np.uint8)
    pixels = np.asarray(Pillow.fromarray(coarse).resize((width, height), Pillow.Resampling.BICUBIC), dtype=np.int16)
    pixels = pixels + generator.integers(-8, 9, pixels.shape)
    buffer = io.BytesIO()
    Pillow.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, file_format, **options)
    return buffer.getvalue()
