"""Hiding tokens: which ones may be drawn, and what stands in their place."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from learning.config import Config
from learning.modalities.text import TextState
from learning.modalities.tokenization import MASK, hiding_token, word_starts

# Of the hidden tokens, those that become a mask, and those that become any other token; the remaining stay as they
# are, so that no token can be trusted blindly (Devlin et al. 2019).
_MASKED, _REPLACED = 0.8, 0.1


class Maskable(Config):
    """The vocabulary's size, its mask, the tokens that stand for no text, and those that go on with a word."""

    vocabulary: int
    mask: int | None  # none where a tokenizer has no token that could hide another: then nothing is hidden
    special: tuple[int, ...]
    continued: tuple[int, ...] = ()  # empty unless whole words are hidden

    @classmethod
    def of(cls, inputs: TextState, whole_words: bool = False) -> Maskable:
        """Return what a tokenizer says; IncompatibleModel when it has no mask."""
        starts = word_starts(inputs.tokenizer) if whole_words else []
        return cls(
            vocabulary=inputs.vocabulary,
            mask=inputs.token(MASK),
            special=inputs.special_tokens(),
            continued=tuple(number for number, is_start in enumerate(starts) if not is_start),
        )

    @classmethod
    def if_possible(cls, inputs: TextState) -> Maskable:
        """Return what a tokenizer says, with the unknown token for a mask if it has none, as GPT-2's and Llama's."""
        return cls(vocabulary=inputs.vocabulary, mask=hiding_token(inputs.opened), special=inputs.special_tokens())


class Masker(nn.Module):
    """Draws tokens and hides them, on the device of the network that it is part of."""

    ordinary_V: Tensor
    starts_word_V: Tensor

    def __init__(self, maskable: Maskable) -> None:
        super().__init__()
        self._maskable = maskable
        for name, excepted in (("ordinary_V", maskable.special), ("starts_word_V", maskable.continued)):
            flags_V = torch.ones(maskable.vocabulary, dtype=torch.bool)
            flags_V[list(excepted)] = False
            self.register_buffer(name, flags_V, persistent=False)

    def draw(self, token_S: Tensor, share: float) -> Tensor:
        """Return hidden_S: each token, or each word, with probability `share`; what stands for no text never."""
        if not self._maskable.continued:
            drawn_S = torch.rand(len(token_S), device=token_S.device) < share
        else:
            word_S = self.starts_word_V[token_S].cumsum(0)
            drawn_S = (torch.rand(len(token_S) + 1, device=token_S.device) < share)[word_S]
        return drawn_S & self.ordinary_V[token_S]

    def mask(self, token_S: Tensor, hidden_S: Tensor) -> Tensor:
        """Return the tokens with every hidden one masked, if there is a mask."""
        if self._maskable.mask is None:
            return token_S
        return token_S.masked_fill(hidden_S, self._maskable.mask)

    def disguise(self, token_S: Tensor, hidden_S: Tensor) -> Tensor:
        """Return the tokens with most hidden ones masked, some replaced by any token, some left."""
        draw_S = torch.rand(len(token_S), device=token_S.device)
        any_S = torch.randint_like(token_S, self._maskable.vocabulary)
        replaced_S = hidden_S & (draw_S >= 1 - _REPLACED)
        return torch.where(replaced_S, any_S, self.mask(token_S, hidden_S & (draw_S < _MASKED)))
