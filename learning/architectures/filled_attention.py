"""Attention in bf16 on a CPU, with its gradient: texts are filled up to whole blocks of positions.

The gradient of torch's fused kernel is slow there: a third of a training step at 18 tokens. Batched products and
softmaxes are fast where their sizes are multiples of the processor's tiles and what they read lies in order, so each
head's queries, keys and values are gathered once, and texts of about the same length are taken together.

S positions of the keys' texts, U of the queries', B texts, H heads, K width of a head; P places after filling up, of
one head each; R texts of a bucket times heads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

Tensors = tuple[Tensor, ...]

_BLOCK, _SMALL_BLOCK = 32, 16
# From about here on torch's kernel is faster, which does not keep all scores.
_LONGEST = 512


class Stretches(NamedTuple):
    """Where texts begin among packed positions, and how long they are."""

    start_B: Tensor
    length_B: Tensor

    def taken(self, order_B: Tensor) -> Stretches:
        """Return the stretches in another order."""
        return Stretches(self.start_B[order_B], self.length_B[order_B])


class Bucket(NamedTuple):
    """Texts that have come to the same lengths, by head, and what is added to their scores, (R or 1, Q or 1, K)."""

    texts: int
    queries: int
    keys: int
    bias: Tensor | None


@dataclass(frozen=True, eq=False)
class FilledSide:
    """Where positions go that are filled up, and where they come from, each head by itself."""

    take_P: Tensor
    back_P: Tensor
    is_real_P1: Tensor | None  # in bf16, 1 where there is a position; None where there is one everywhere
    sizes: list[int]  # of the buckets

    @classmethod
    def of(cls, texts: Stretches, filled_B: Tensor, counts: list[int], heads: int) -> FilledSide:
        """Return the side whose texts, in the order of buckets, are filled up to these lengths."""
        filled_R = filled_B.repeat_interleave(heads)
        begin_R = filled_R.cumsum(0) - filled_R
        row_P = torch.repeat_interleave(filled_R)
        place_P = torch.arange(len(row_P)) - begin_R[row_P]
        text_P, head_P = row_P // heads, row_P % heads
        length_P = texts.length_B[text_P]
        # What is filled up repeats the text's last position, which is as finite as the text is.
        position_P = texts.start_B[text_P] + torch.minimum(place_P, length_P - 1)
        take_P, is_real_P = position_P * heads + head_P, place_P < length_P
        real = is_real_P.nonzero().squeeze(1)
        back_P = torch.empty_like(real)
        back_P[take_P[real]] = real
        sizes = [int(part.sum()) for part in filled_R.split([count * heads for count in counts])]
        filled = None if len(real) == len(row_P) else is_real_P.to(torch.bfloat16).unsqueeze(1)
        return cls(take_P, back_P, filled, sizes)

    def filled(self, packed_SD: Tensor, heads: int) -> Tensor:
        """Return the heads of packed positions, filled up, (P, K)."""
        return packed_SD.reshape(len(packed_SD) * heads, -1).index_select(0, self.take_P)

    def packed(self, filled_PK: Tensor, heads: int) -> Tensor:
        """Return the positions that were filled up, as they were, (S, D)."""
        return filled_PK.index_select(0, self.back_P).view(len(self.back_P) // heads, -1)


@dataclass(frozen=True, eq=False)
class Filling:
    """How texts that look and texts that are looked at are filled up; of a batch, and good for each of its layers."""

    heads: int
    buckets: list[Bucket]
    queries: FilledSide
    keys: FilledSide

    @classmethod
    def of(cls, queries: Stretches, keys: Stretches, heads: int, *, causal: bool) -> Filling:
        """Return the filling of texts of which each looks at one; if `causal`, at itself and up to each position."""
        filled_B2 = torch.stack([_filled(keys.length_B), _filled(queries.length_B)], 1)
        pairs, bucket_B = filled_B2.unique(dim=0, return_inverse=True)
        order_B = bucket_B.argsort(stable=True)
        counts = bucket_B.bincount().tolist()
        lengths = keys.length_B[order_B].split(counts)
        buckets = [
            Bucket(len(length_N), most_queries, most_keys, _bias(length_N, most_keys, heads, causal=causal))
            for (most_keys, most_queries), length_N in zip(pairs.tolist(), lengths, strict=True)
        ]
        keys_B, queries_B = filled_B2[order_B].unbind(1)
        looked_at = FilledSide.of(keys.taken(order_B), keys_B, counts, heads)
        if queries is keys:  # texts look at themselves
            return cls(heads, buckets, looked_at, looked_at)
        return cls(heads, buckets, FilledSide.of(queries.taken(order_B), queries_B, counts, heads), looked_at)

    def parts(self, looking: Tensors, looked_at: Tensors) -> Iterator[tuple[Bucket, list[Tensor]]]:
        """Yield each bucket with its parts of filled tensors of either side, (R, Q, K) and (R, T, K)."""
        of_queries = [filled_PK.split(self.queries.sizes) for filled_PK in looking]
        of_keys = [filled_PK.split(self.keys.sizes) for filled_PK in looked_at]
        for number, bucket in enumerate(self.buckets):
            rows = bucket.texts * self.heads
            looking_RQK = [parts[number].view(rows, bucket.queries, -1) for parts in of_queries]
            looked_at_RTK = [parts[number].view(rows, bucket.keys, -1) for parts in of_keys]
            yield bucket, looking_RQK + looked_at_RTK


def suits(query_UD: Tensor, longest: int) -> bool:
    """Return whether attention that is to be learned through is faster so, given the longest text."""
    return (
        query_UD.dtype == torch.bfloat16
        and query_UD.device.type == "cpu"
        and torch.is_grad_enabled()
        and longest <= _LONGEST
    )


def attend_filled(query_UD: Tensor, key_SD: Tensor, value_SD: Tensor, filling: Filling) -> Tensor:
    """Return softmax(QK')V, (U, D)."""
    apply = cast("Callable[..., Tensor]", _Attention.apply)
    return apply(query_UD, key_SD, value_SD, filling)


def _filled(length_B: Tensor) -> Tensor:
    return torch.where(length_B <= _SMALL_BLOCK, _SMALL_BLOCK, (length_B + _BLOCK - 1) // _BLOCK * _BLOCK)


def _bias(length_N: Tensor, most: int, heads: int, *, causal: bool) -> Tensor | None:
    """Return what keeps queries of N texts from looking at what they are not to see."""
    if causal:  # what is filled up is later than all that is real
        return torch.full((1, most, most), -torch.inf, dtype=torch.bfloat16).triu(1)
    is_beyond_NT = torch.arange(most) >= length_N.unsqueeze(1)
    if not is_beyond_NT.any():
        return None
    bias_NT = torch.zeros(is_beyond_NT.shape, dtype=torch.bfloat16).masked_fill_(is_beyond_NT, -torch.inf)
    return bias_NT.repeat_interleave(heads, 0).unsqueeze(1)


def _scores(query_RQK: Tensor, key_RTK: Tensor, bias: Tensor | None) -> Tensor:
    scale = query_RQK.shape[2] ** -0.5
    rows, queries, keys = len(query_RQK), query_RQK.shape[1], key_RTK.shape[1]
    if bias is None:
        return torch.bmm(query_RQK, key_RTK.transpose(1, 2)).mul_(scale)
    return torch.baddbmm(bias.expand(rows, queries, keys), query_RQK, key_RTK.transpose(1, 2), alpha=scale)


class _Attention(torch.autograd.Function):
    """The products in bf16, as autocast has them; a softmax sums in fp32 and is kept in bf16."""

    @staticmethod
    def forward(ctx: Any, query_UD: Tensor, key_SD: Tensor, value_SD: Tensor, filling: Filling) -> Tensor:
        heads = filling.heads
        query_PK = filling.queries.filled(query_UD, heads)
        key_PK, value_PK = (filling.keys.filled(part_SD, heads) for part_SD in (key_SD, value_SD))
        found_PK = torch.empty_like(query_PK)
        shares = []
        for bucket, (query, found, key, value) in filling.parts((query_PK, found_PK), (key_PK, value_PK)):
            # Not torch.softmax, which autocast has in fp32.
            shares.append(torch.ops.aten._softmax(_scores(query, key, bucket.bias), -1, False))
            torch.bmm(shares[-1], value, out=found)
        ctx.save_for_backward(query_PK, key_PK, value_PK, *shares)
        ctx.filling = filling
        return filling.queries.packed(found_PK, heads)

    @staticmethod
    def backward(ctx: Any, gradient_UD: Tensor) -> tuple[Tensor | None, ...]:
        query_PK, key_PK, value_PK, *shares = ctx.saved_tensors
        filling: Filling = ctx.filling
        heads, scale = filling.heads, query_PK.shape[1] ** -0.5
        gradient_PK = filling.queries.filled(gradient_UD, heads)
        if filling.queries.is_real_P1 is not None:
            gradient_PK.mul_(filling.queries.is_real_P1)
        to_query_PK, to_key_PK, to_value_PK = (torch.empty_like(part) for part in (query_PK, key_PK, value_PK))
        parts = filling.parts((query_PK, gradient_PK, to_query_PK), (key_PK, value_PK, to_key_PK, to_value_PK))
        for share, (_, (query, gradient, to_query, key, value, to_key, to_value)) in zip(shares, parts, strict=True):
            torch.bmm(share.transpose(1, 2), gradient, out=to_value)
            to_share = torch.bmm(gradient, value.transpose(1, 2))
            to_scores = torch.ops.aten._softmax_backward_data(to_share, share, -1, share.dtype).mul_(scale)
            torch.bmm(to_scores, key, out=to_query)
            torch.bmm(to_scores.transpose(1, 2), query, out=to_key)
        return (
            filling.queries.packed(to_query_PK, heads),
            filling.keys.packed(to_key_PK, heads),
            filling.keys.packed(to_value_PK, heads),
            None,
        )
