"""The registered models as a peer opens them: the perceptron by this package's forward, the others by transformers."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

torch.set_num_threads(1)


class Tabular:
    """Rows by column name in, scores of the likelier class out."""

    def __init__(self, directory: Path) -> None:
        from learning.prediction import Predictor

        self._predictor = Predictor(directory)

    def __call__(self, rows: Sequence[dict[str, float]]) -> list[float]:
        """Return a score for each row."""
        return [answer["score"] for answer in self._predictor.predict(rows).outputs]


class Text:
    """Texts in, scores of the likeliest class out: tokenised and padded together, as transformers shows it."""

    def __init__(self, directory: Path) -> None:
        from safetensors.torch import load_file
        from transformers import AutoModel, AutoTokenizer

        self._tokenizer = AutoTokenizer.from_pretrained(directory)
        self._model = AutoModel.from_pretrained(directory).eval()
        weights = load_file(directory / "model.safetensors")
        self._weight_OD, self._bias_O = (weights[f"head.linear.{name}"] for name in ("weight", "bias"))

    def __call__(self, texts: Sequence[str]) -> list[float]:
        """Return a score for each text."""
        with torch.inference_mode():
            batch = self._tokenizer(list(texts), padding=True, truncation=True, max_length=512, return_tensors="pt")
            features_BTD = self._model(**batch).last_hidden_state
            mask_BT1 = batch["attention_mask"].unsqueeze(2)
            pooled_BD = (features_BTD * mask_BT1).sum(1) / mask_BT1.sum(1)
            scores: list[float] = (pooled_BD @ self._weight_OD.T + self._bias_O).softmax(1).amax(1).tolist()
            return scores


class Image:
    """JPEG files in base64 in, scores of the likeliest class out: read by Pillow, as transformers shows it."""

    def __init__(self, directory: Path) -> None:
        from safetensors.torch import load_file
        from transformers import AutoModel

        self._model = AutoModel.from_pretrained(directory).eval()
        self._state = json.loads((directory / "config.json").read_text())["inputs"]
        weights = load_file(directory / "model.safetensors")
        self._weight_OD, self._bias_O = (weights[f"head.linear.{name}"] for name in ("weight", "bias"))

    def __call__(self, files: Sequence[str]) -> list[float]:
        """Return a score for each file."""
        from PIL import Image as Pillow

        side = (self._state["size"], self._state["size"])
        mean_C11, deviation_C11 = (torch.tensor(self._state[name]).reshape(3, 1, 1) for name in ("mean", "deviation"))
        with torch.inference_mode():
            pixels = [
                np.asarray(Pillow.open(io.BytesIO(base64.b64decode(file))).resize(side, Pillow.Resampling.BILINEAR))
                for file in files
            ]
            pixels_BCHW = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float().div_(255)
            pooled_BD = self._model((pixels_BCHW - mean_C11) / deviation_C11).pooler_output.flatten(1)
            scores: list[float] = (pooled_BD @ self._weight_OD.T + self._bias_O).softmax(1).amax(1).tolist()
            return scores


def opened(directory: Path, name: str) -> Any:
    """Return a registered model, by the directory of all of them."""
    return {"tabular": Tabular, "text": Text, "image": Image}[name](directory / name)
