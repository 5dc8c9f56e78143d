"""Hiding tokens: which ones may be drawn, and what stands in their place."""

from __future__ import annotations

import torch
from tokenizers import models
from torch import Tensor, nn

from learning.config import Config
from learning.modalities import word_edges
from learning.modalities.text import TextState
from learning.modalities.tokenization import MASK, hiding_token, word_starts

# Of the hidden tokens, those that become a mask, and those that become any other token; the remaining stay as they
# are, so that no token can be trusted blindly (Devlin et al. 2019).
_MASKED, _REPLACED = 0.8, 0.1
_SPACE, _BREAK, _ALONE, _INSIDE = map(ord, (word_edges.SPACE, word_edges.BREAK, word_edges.ALONE, word_edges.INSIDE))


class Maskable(Config):
    """The vocabulary's size, its mask, the tokens that stand for no text, and what says where words begin.

    That is the tokens that go on with a word, or else what each token begins and ends with.
    """

    vocabulary: int
    mask: int | None  # none where a tokenizer has no token that could hide another: then nothing is hidden
    special: tuple[int, ...]
    continued: tuple[int, ...] = ()  # these three are empty unless whole words are hidden
    begins: str = ""
    ends: str = ""

    @classmethod
    def of(cls, inputs: TextState, whole_words: bool = False) -> Maskable:
        """Return what a tokenizer says; IncompatibleModel when it has no mask."""
        starts = word_starts(inputs.tokenizer) if whole_words else []
        is_split = isinstance(inputs.opened.model, models.BPE | models.Unigram)  # otherwise than by words
        begins, ends = word_edges.edges(inputs.opened) if whole_words and is_split else ("", "")
        return cls(
            vocabulary=inputs.vocabulary,
            mask=inputs.token(MASK),
            special=inputs.special_tokens(),
            continued=tuple(number for number, is_start in enumerate(starts) if not is_start),
            begins=begins,
            ends=ends,
        )

    @classmethod
    def if_possible(cls, inputs: TextState) -> Maskable:
        """Return what a tokenizer says, with the unknown token for a mask if it has none, as GPT-2's and Llama's."""
        return cls(vocabulary=inputs.vocabulary, mask=hiding_token(inputs.opened), special=inputs.special_tokens())


class Masker(nn.Module):
    """Draws tokens and hides them, on the device of the network that it is part of."""

    ordinary_V: Tensor
    starts_word_V: Tensor
    begins_V: Tensor
    ends_V: Tensor

    def __init__(self, maskable: Maskable) -> None:
        super().__init__()
        self._maskable = maskable
        for name, excepted in (("ordinary_V", maskable.special), ("starts_word_V", maskable.continued)):
            flags_V = torch.ones(maskable.vocabulary, dtype=torch.bool)
            flags_V[list(excepted)] = False
            self.register_buffer(name, flags_V, persistent=False)
        for name, kinds in (("begins_V", maskable.begins), ("ends_V", maskable.ends)):
            self.register_buffer(name, torch.tensor(list(map(ord, kinds)), dtype=torch.uint8), persistent=False)

    def draw(self, token_S: Tensor, share: float) -> Tensor:
        """Return hidden_S: each token, or each word, with probability `share`; what stands for no text never."""
        if not self._maskable.continued and not self._maskable.begins:
            drawn_S = torch.rand(len(token_S), device=token_S.device) < share
        else:
            word_S = self.word_starts(token_S).cumsum(0)
            drawn_S = (torch.rand(len(token_S) + 1, device=token_S.device) < share)[word_S]
        return drawn_S & self.ordinary_V[token_S]

    def word_starts(self, token_S: Tensor) -> Tensor:
        """Return start_S, where words begin."""
        if not self._maskable.begins:
            return self.starts_word_V[token_S]
        begins_S, ends_S = self.begins_V[token_S], self.ends_V[token_S]
        # What a token ends with in which no character begins, the one before it says.
        place_S = torch.arange(len(token_S), device=token_S.device)
        ends_S = ends_S[place_S.where(ends_S != _INSIDE, 0).cummax(0).values]
        before_S = ends_S.roll(1)
        before_S[:1] = _ALONE
        is_blank_S = (begins_S == _SPACE) | (begins_S == _BREAK)
        is_other_S = (begins_S == _ALONE) | (begins_S != before_S)
        return is_blank_S | (is_other_S & (before_S != _SPACE) & (begins_S != _INSIDE))

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
