"""Pretrain on texts without labels: parts are taken out, the network writes the whole text.

Text infilling of BART (Lewis et al. 2020, arXiv 1910.13461): stretches of tokens, of lengths that follow Poisson's
distribution, each become one mask; a stretch of no token is a mask where nothing was. S positions of B rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from learning.config import Columns, Config
from learning.interfaces import Batch, Network
from learning.modalities.text import TextState
from learning.modalities.tokenization import LAST, MASK, PADDING, hiding_token
from learning.product_rows import NO_TARGET
from learning.tasks.pretraining import Pretraining
from learning.tasks.translation import TargetHead, foretold


class DenoisingConfig(Config):
    """How much is taken out, and in what pieces."""

    mask_share: float = Field(0.3, gt=0, lt=1, description="Share of tokens taken out in each step, drawn anew.")
    span_length: float = Field(
        3.0, ge=0.5, le=20, description="Mean length of a stretch that becomes one mask, in tokens."
    )


class DenoisingState(Config):
    """The tokens before and behind a text, the mask, and the configuration."""

    begin: int
    end: int
    mask: int
    config: DenoisingConfig


class Denoising(Pretraining):
    """Restore texts of which stretches were taken out; makes a base model for translation."""

    name: ClassVar[str] = "denoising"
    modality: ClassVar[str] = "text"
    writes_another: ClassVar[bool] = True
    preprocessing: ClassVar[Mapping[str, Any]] = {"tokenizer": "bytes", "lower_case": False, "exact": True}
    Config: ClassVar[type[DenoisingConfig]] = DenoisingConfig
    State: ClassVar[type[DenoisingState]] = DenoisingState

    def fit(self, table: pa.Table, columns: Columns, config: DenoisingConfig, inputs: TextState) -> DenoisingState:
        """Look up what tokens are."""
        begin, end = (inputs.token(name) for name in (PADDING, LAST))
        mask = hiding_token(inputs.opened)  # Marian's have no mask, but an unknown token
        return DenoisingState(begin=begin, end=end, mask=inputs.token(MASK) if mask is None else mask, config=config)

    def head(self, width: int, state: DenoisingState) -> nn.Module:
        """Return the head that scores tokens."""
        return TargetHead()

    def loss(self, network: Network, batch: Batch, state: DenoisingState) -> Tensor:
        """Return the mean cross-entropy of the whole texts' tokens, written from what is left of them."""
        logits_UV, target_U, _ = foretold(network, noised(batch, state))
        return functional.cross_entropy(logits_UV.float(), target_U)


def noised(batch: Batch, state: DenoisingState) -> Batch:
    """Return pairs: what is left of each text, and the text. First and last token of a text always stay."""
    device = batch["token_S"].device
    token_S, length_B = batch["token_S"].cpu().numpy(), batch["length_B"].numpy()
    draw = np.random.default_rng(int(torch.randint(2**63 - 1, ())))
    tokens, targets = list[NDArray[np.int32]](), list[NDArray[np.int32]]()
    lengths, sources = list[int](), list[int]()
    for row in np.split(token_S, length_B.cumsum()[:-1]):
        source = _infilled(row, state, draw)
        text = row[1:-1]
        tokens += [source, np.array([state.begin], dtype=np.int32), text]
        targets += [np.full(len(source), NO_TARGET, dtype=np.int32), text, np.array([state.end], dtype=np.int32)]
        sources.append(len(source))
        lengths.append(len(source) + 1 + len(text))
    return {
        "token_S": torch.from_numpy(np.concatenate(tokens)).to(device),
        "target_S": torch.from_numpy(np.concatenate(targets)).to(device),
        "length_B": torch.tensor(lengths),
        "source_length_B": torch.tensor(sources),
    }


def _infilled(row: NDArray[np.int32], state: DenoisingState, draw: np.random.Generator) -> NDArray[np.int32]:
    """Return a text's tokens with stretches of them, until a share is gone, each become one mask."""
    text = row[1:-1]
    left = round(state.config.mask_share * len(text) + draw.uniform(-0.5, 0.5))
    is_gone, inserted = np.zeros(len(text), dtype=bool), list[int]()
    while left > 0:
        length = min(int(draw.poisson(state.config.span_length)), left)
        place = int(draw.integers(0, len(text) - length + 1))
        is_gone[place : place + length] = True
        if not length:
            inserted.append(place)
        left -= max(1, length)  # a mask where nothing was is work as well, and this ends
    starts = is_gone & ~np.concatenate([[False], is_gone[:-1]])  # stretches that touch are one
    kept = np.where(starts, state.mask, text)[~is_gone | starts]
    room = len(text) - len(kept)  # what is read must not become longer than the text, for which there are positions
    places = np.sort(np.minimum(np.array(inserted[:room], dtype=np.int64), len(kept)))
    return np.concatenate([row[:1], np.insert(kept, places, state.mask), row[-1:]])
