"""The runs of a grid, and which arguments are refused."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import gradnoise as gn
from tests.small_runs import DATA, accuracy, small, swept
from tests.starts import trained


class Wrapped(nn.Module):
    """A linear map with a given tensor for its weights."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.detach())

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight.T


def test_equal_epochs_are_fewer_steps_of_larger_batches() -> None:
    steps = {r.run.batch_size: r.run.steps for r in swept(epochs=3).records}
    assert steps == {4: 24, 8: 12}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_sizes": []}, "must each hold something"),
        ({"batch_sizes": [0]}, "`batch_sizes` must be a whole number from 1 on; got 0"),
        ({"batch_sizes": [64]}, "`batch_sizes` holds 64, and there are 32 samples"),
        ({"lrs": [0.1, -1.0]}, "`lrs` must be positive numbers"),
        ({"lrs": ["0.1"]}, "`lrs` must be positive numbers"),
        ({"seeds": [-1]}, "`seeds` must be a whole number from 0 on; got -1"),
        ({"epochs": None}, "say how long to train"),
        ({"epochs": 0}, "`epochs` must be a positive number; got 0"),
        ({"steps": 0}, "`steps` must be a whole number from 1 on; got 0"),
        ({"momentum": 1.0}, "`momentum` must be at least 0 and below 1; got 1.0"),
        ({"optimizer": "lion"}, "`optimizer` must be one of sgd, nesterov, adam; got 'lion'"),
        ({"optimizer": "nesterov"}, "needs a `momentum` above 0"),
        ({"vectorise": "maybe"}, '`vectorise` must be "auto", True or False'),
        ({"metrics": {"accuracy": accuracy}}, "`metrics` are about `test_data`; give some"),
        ({"seeds": 1.5}, "`seeds` must be a whole number from 0 on; got 1.5"),
        ({"schedule": "cos"}, "`schedule` must be 'linear' or 'cosine', or a function"),
    ],
)
def test_what_cannot_be_trained_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(gn.ArgumentError, match=message):
        swept(**options)


def test_a_model_in_place_of_a_function_is_refused() -> None:
    for wrong, error, message in (
        (small(), gn.ArgumentError, "`make_model` must be a function"),
        (lambda: None, gn.ModelError, "`make_model` must return a new torch.nn.Module"),
        (nn.Linear, gn.ArgumentError, "`make_model` is called without arguments"),
        (nn.Tanh, gn.ModelError, "the model has no trainable parameter"),
    ):
        with pytest.raises(error, match=message):
            gn.sweep(wrong, nn.CrossEntropyLoss(), DATA, batch_sizes=[8], lrs=[1.0], epochs=1)


@pytest.mark.parametrize("make", [lambda model: model, lambda model: Wrapped(model.weight)])
def test_a_model_that_is_handed_out_twice_is_refused(make: Any) -> None:
    model = nn.Linear(5, 2).double()
    for sweep in (gn.sweep, gn.lr_sweep):
        size = {"batch_sizes": [8], "lrs": [0.1]} if sweep is gn.sweep else {"batch_size": 8}
        with pytest.raises(gn.ArgumentError, match=r"the same weights twice.*deepcopy"):
            sweep(lambda: make(model), nn.CrossEntropyLoss(), DATA, epochs=1, **size)


def test_a_copy_of_a_model_and_a_frozen_part_that_is_shared_are_trained() -> None:
    model, frozen = small(), nn.Linear(5, 5).double().requires_grad_(False)
    before = [p.clone() for p in model.parameters()]
    for make in (
        lambda: copy.deepcopy(model),
        lambda: nn.Sequential(frozen, nn.Linear(5, 2).double()),
    ):
        assert len(swept(make).records) == 8
    assert all(map(torch.equal, before, model.parameters()))


def test_weights_that_the_seed_does_not_decide_are_refused() -> None:
    source = torch.Generator().manual_seed(0)

    def make() -> nn.Module:
        return Wrapped(torch.randn(2, 5, generator=source, dtype=torch.float64))

    with pytest.raises(gn.ArgumentError, match="other weights when it was called again under"):
        swept(make)


def test_rates_can_depend_on_the_batch_size() -> None:
    """Pairs (kB, rule·ε)."""
    found = swept(lrs=lambda size: [f * gn.scale_lr(0.1, 4, size) for f in (1, 2)], seeds=1)
    pairs = [(r.run.batch_size, r.run.lr) for r in found.records]
    assert pairs == [(4, 0.1), (4, 0.2), (8, 0.2), (8, 0.4)]
    with pytest.raises(gn.ArgumentError, match="`lrs` must be positive numbers; got \\[0\\]"):
        swept(lrs=lambda size: [8 - size])
    with pytest.raises(gn.ArgumentError, match="must each hold something"):
        swept(lrs=lambda size: [])


def test_with_a_torch_optimizer_the_model_itself_is_needed() -> None:
    model, optimizer = trained()
    for options, said in (
        ({"model": small}, "give the model itself as `make_model`"),
        ({"model": model, "momentum": 0.9}, "`momentum` and `weight_decay` are those of the torch"),
        ({"model": small()}, "`optimizer` holds no parameter of `model`"),
    ):
        with pytest.raises(gn.ArgumentError, match=said):
            swept(optimizer=optimizer, **options)


def test_whole_numbers_of_numpy_are_read_and_written(tmp_path: Path) -> None:
    path = tmp_path / "sweep.jsonl"
    found = swept(
        batch_sizes=np.array([4, 8]), seeds=np.int64(2), epochs=None, steps=np.int8(3), path=path
    )
    plain = swept(batch_sizes=[4, 8], seeds=2, epochs=None, steps=3, path=path)
    assert found.records == plain.records == gn.Sweep.load(path).records
