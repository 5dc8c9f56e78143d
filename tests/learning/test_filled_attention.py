"""Attention in bf16 on a CPU: its results and gradients are those of the same numbers in fp32."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from learning.architectures.packed_attention import Groups, attend
from learning.architectures.packed_pairs import Crossing, attend_across

HEADS, WIDTH = 4, 64
ROUNDING = 0.01  # of the largest value; bf16 keeps eight bits
LENGTHS = torch.tensor([1, 5, 7, 7, 16, 17, 33, 64, 100])
# Where all have whole blocks, and where one is too long for them.
BLOCKS, LONG = torch.tensor([32, 64, 64]), torch.tensor([20, 600])

Attention = Callable[[Tensor, Tensor, Tensor], Tensor]


def drawn(*lengths: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(length, WIDTH, generator=generator).bfloat16() for length in lengths]


def assert_as_in_fp32(attention: Attention, inputs: list[Tensor]) -> None:
    generator = torch.Generator().manual_seed(1)
    gradient = torch.randn(inputs[0].shape, generator=generator).bfloat16()
    lowered = [part.clone().requires_grad_() for part in inputs]
    exact = [part.float().requires_grad_() for part in inputs]
    found, wanted = attention(*lowered), attention(*exact)
    found.backward(gradient)
    wanted.backward(gradient.float())
    assert found.dtype == torch.bfloat16
    pairs = [(found, wanted), *((part.grad, other.grad) for part, other in zip(lowered, exact, strict=True))]
    for part, other in pairs:
        assert part is not None
        assert other is not None
        assert (part.float() - other).abs().max() <= ROUNDING * other.abs().max()


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("length_B", [LENGTHS, BLOCKS, LONG])
def test_rows_look_at_themselves(length_B: Tensor, causal: bool) -> None:
    def attention(query_SD: Tensor, key_SD: Tensor, value_SD: Tensor) -> Tensor:
        return attend(query_SD, key_SD, value_SD, Groups.of(length_B), HEADS, causal=causal)

    assert_as_in_fp32(attention, drawn(*[int(length_B.sum())] * 3))


def test_targets_look_at_sources() -> None:
    source_B, target_B = torch.tensor([3, 40, 7, 16, 70, 1]), torch.tensor([40, 3, 3, 17, 33, 2])
    sources, targets = int(source_B.sum()), int(target_B.sum())

    def attention(query_UD: Tensor, key_SD: Tensor, value_SD: Tensor) -> Tensor:
        return attend_across(query_UD, key_SD, value_SD, Crossing.of(source_B, target_B), HEADS)

    assert_as_in_fp32(attention, drawn(targets, sources, sources))


def test_a_row_of_infinities_leaves_the_others_alone() -> None:
    query_SD, key_SD, value_SD = drawn(*[int(LENGTHS.sum())] * 3)
    value_SD[-100:] = torch.inf
    found_SD = attend(query_SD, key_SD, value_SD.requires_grad_(), Groups.of(LENGTHS), HEADS)
    found_SD[:-100].sum().backward()
    assert found_SD[:-100].isfinite().all()
    gradient = value_SD.grad
    assert gradient is not None
    assert gradient[:-100].isfinite().all()
