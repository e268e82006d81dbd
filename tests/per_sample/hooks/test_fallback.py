"""Operations without a rule: differentiated sample by sample, or refused."""

from __future__ import annotations

import pytest
import torch

import gradnoise as gn
from tests.engines import summary
from tests.layer_cases import Function, squares

FIVE = torch.linspace(-1, 1, 5 * 5 * 4, dtype=torch.float64).reshape(5, 5, 4)
AMBIGUOUS = {
    "several axes that could be those of the samples": (
        lambda s, x: torch.einsum("nti,io->tno", x, s.w).transpose(0, 1),
        {"w": (4, 3)},
        FIVE,
    ),
    r"an input of shape \(3, 4, 5\) has no axis of the samples": (
        lambda s, x: torch.einsum("tin,io->nto", x.permute(1, 2, 0), s.w),
        {"w": (4, 3)},
        FIVE[:, :3],
    ),
    "an operation whose samples cannot be told apart": (
        lambda s, x: torch.where(x > 0, x, s.w),
        {"w": (5, 4)},
        FIVE[:, 0],
    ),
    "a bias that differs between positions": (
        lambda s, x: torch.addmm(s.b, x, s.w),
        {"b": (5, 3), "w": (4, 3)},
        FIVE[:, 0],
    ),
}


@pytest.mark.parametrize("message", AMBIGUOUS)
def test_what_cannot_be_attributed_to_samples_is_refused(message: str) -> None:
    forward, shapes, batch = AMBIGUOUS[message]
    with pytest.raises(gn.EngineError, match=message):
        summary(Function(forward, **shapes).double(), squares, batch)
