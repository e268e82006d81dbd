"""The population that samples are taken from."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

import gradnoise as gn
from gradnoise.problem.population import AUGMENTED, STREAM, is_augmented, population_of
from tests.unit_cases import CE, X, Y, mlp


class Augmented(Dataset[Any]):
    """Samples with noise, or a flip, that is drawn when they are read."""

    def __init__(self, draw: Any) -> None:
        self.draw = draw

    def __len__(self) -> int:
        return len(X)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return X[index] * self.draw(), Y[index]


DRAWS: dict[str, Any] = {
    "torch": lambda: 1 + torch.randn(()),
    "python": lambda: 1.0 if random.random() < 0.5 else -1.0,
}


def test_a_population_is_what_is_said_or_what_there_is() -> None:
    assert population_of("dataset", 50.0, 20) == (50.0, "")
    assert population_of("dataset", math.inf, 20) == (math.inf, STREAM)
    assert population_of("dataset", math.inf, 20, AUGMENTED) == (math.inf, AUGMENTED)
    assert population_of("distribution", 50.0, 20) == (math.inf, "")
    assert population_of(30, 50.0, 20) == (30.0, "")
    with pytest.raises(gn.ArgumentError, match="is smaller than the 20 measured samples"):
        population_of(10, 50.0, 20)


@pytest.mark.parametrize("draw", DRAWS)
@pytest.mark.parametrize("layers", [(), (nn.BatchNorm1d(5),)], ids=["samples", "groups"])
def test_augmented_samples_are_from_a_distribution(draw: str, layers: Any) -> None:
    data = Augmented(DRAWS[draw])
    assert is_augmented(data)
    model = mlp(*layers)
    states = torch.get_rng_state(), random.getstate()
    for given in (data, DataLoader(data, 16, shuffle=True)):
        p = gn.profile(model, CE, given, probes=2)
        assert math.isinf(p.population)
        assert AUGMENTED in p.warnings
        assert p.trace_cov.low < float(p.trace_cov) < p.trace_cov.high
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert gn.profile(mlp(), CE, data, population=96, probes=2).population == 96


def test_samples_that_are_always_the_same_are_not() -> None:
    assert not is_augmented(Augmented(lambda: 1.0))
    assert not is_augmented(TensorDataset(X, Y))
    p = gn.profile(mlp(), CE, Augmented(lambda: 1.0), probes=2)
    assert p.population == 96
    assert p.loss.low == p.loss.high
