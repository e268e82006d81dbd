"""Weighted sums of gradients, against the gradients written out."""

from __future__ import annotations

import pytest
import torch

from gradnoise.problem import sums
from gradnoise.problem.problem import Problem
from gradnoise.problem.sums import scattered_sums, sign_sums, sums_of_some
from gradnoise.tensors.random import random_signs, scattered_signs
from gradnoise.tensors.trees import flatten
from tests.cases import CASES
from tests.many import COUNT, opened, regression, written


def test_signs_are_moved_in_a_dtype_that_the_device_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """Signs are drawn in float64, which Apple's devices do not have."""
    dtypes: list[torch.dtype] = []
    whole = sums.weighted_sums
    monkeypatch.setattr(sums, "wide_dtype", lambda _: torch.float32)
    monkeypatch.setattr(
        sums, "weighted_sums", lambda p, w: (dtypes.append(w.dtype), whole(p, w))[1]
    )
    problem = Problem.open(*CASES[0].build())
    assert len(list(sign_sums(problem, random_signs(3, problem.samples.count, seed=0)))) == 3
    assert dtypes == [torch.float32]  # one call for all three


def test_scattered_sums_are_those_of_all_samples() -> None:
    own = opened()
    signs = scattered_signs(4, COUNT, 1, COUNT)
    with own.problem.guard():
        mean = flatten([*own.moments().mean.values()])
        found = torch.stack([*scattered_sums(own.problem, signs, mean)])
    model, _, batch = regression()
    gaps = written(batch, model).gaps
    torch.testing.assert_close(found, signs @ gaps / (COUNT - 1) ** 0.5)


@pytest.mark.parametrize("micro_batch", [7, 1000])
def test_sums_of_some_samples_weigh_each_of_them(micro_batch: int) -> None:
    model, _, batch = regression()
    gradients = written(batch, model).gradients
    positions = torch.tensor([3, 3, 99, 100, 639])
    rows = torch.linspace(-1, 2, 10).double().reshape(2, 5)
    own = opened(micro_batch=micro_batch)
    with own.problem.guard():
        found = sums_of_some(own.problem, positions, rows)
    torch.testing.assert_close(found, rows @ gradients[positions])
