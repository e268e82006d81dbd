"""What makes another sweep: data, model, settings, and the values of loss and metrics."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gradnoise as gn
from gradnoise.training.fingerprint import fingerprint, start_values
from tests.small_runs import (
    INPUTS,
    LABELS,
    TEST,
    accuracy,
    half_frozen,
    halved,
    penalised,
    plan_of,
    small,
    swept,
    zeros,
)
from tests.starts import STACKED, plan_at, trained


def evaluating() -> nn.Module:
    return small().eval()


class Squashed(nn.Module):
    """The same parameters and the same text, whatever the function."""

    def __init__(self, function) -> None:
        super().__init__()
        self.inner, self.outer, self.function = nn.Linear(5, 6), nn.Linear(6, 2), function
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        return self.outer(self.function(self.inner(x)))


def first_class(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return (model(batch[0]).argmax(-1) == 0).double()


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"momentum": 0.5}, "momentum"),
        ({"schedule": halved}, "fingerprint"),
        ({"model": half_frozen}, "fingerprint"),
        ({"model": evaluating}, "fingerprint"),
        ({"loss_fn": nn.CrossEntropyLoss(label_smoothing=0.5)}, "loss at the start"),
        ({"loss_fn": penalised(1e-4)}, "loss at the start"),
        ({"loss_fn": penalised(0.1, seen=False)}, "gradient nearby at the start"),
    ],
)
def test_another_sweep_is_refused(tmp_path: Path, options: dict[str, Any], what: str) -> None:
    path = tmp_path / "sweep.jsonl"
    swept(path=path)
    with pytest.raises(gn.SweepFileError, match=f"of other runs: .*{what}"):
        swept(path=path, **options)


@pytest.mark.parametrize(
    ("first", "then", "what"),
    [
        (
            {"model": zeros, "loss_fn": penalised(0.1)},
            {"model": zeros, "loss_fn": penalised(0.2)},
            "loss nearby at the start",
        ),
        (
            {"model": lambda: Squashed(torch.tanh)},
            {"model": lambda: Squashed(torch.relu)},
            "loss at the start",
        ),
        (
            {"test_data": TEST, "metrics": {"share": accuracy}},
            {"test_data": TEST, "metrics": {"share": first_class}},
            "metric 'share' at the start",
        ),
        (
            {"schedule": lambda fraction: 1.0 if fraction < 0.503 else 0.5},
            {"schedule": lambda fraction: 1.0 if fraction < 0.510 else 0.5},
            "fingerprint",
        ),
    ],
)
def test_what_changes_the_runs_alone_makes_another_sweep(
    tmp_path: Path, first: dict[str, Any], then: dict[str, Any], what: str
) -> None:
    path = tmp_path / "sweep.jsonl"
    swept(path=path, **first)
    assert len(swept(path=path, **first).records) == 8
    with pytest.raises(gn.SweepFileError, match=f"of other runs: {what}"):
        swept(path=path, **then)


def test_a_loss_that_is_not_finite_near_the_start_is_no_obstacle(tmp_path: Path) -> None:
    def steep(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        far = (1000 * model.bias.sum()).exp()
        return model(batch[0])[:, 0].exp() + far.square() - far.square()

    path = tmp_path / "sweep.jsonl"
    found = swept(zeros, steep, lrs=[1e-9], path=path)
    assert math.inf in found.settings["start"].values()
    json.dumps(found.to_dict(), allow_nan=False)
    assert swept(zeros, steep, lrs=[1e-9], path=path).records == found.records


def test_data_initial_weights_and_settings_decide_the_fingerprint() -> None:
    plan = plan_of()
    mark = fingerprint(plan, plan.model(0))
    assert mark == fingerprint(plan_of(), plan.model(0))
    others = [
        fingerprint(plan, plan.model(1)),
        fingerprint(replace(plan, train=(INPUTS[:31], LABELS[:31])), plan.model(0)),
        fingerprint(replace(plan, tolerates_spikes=False), plan.model(0)),
        *(fingerprint(plan_of(**{name: 0.5}), plan.model(0)) for name in ("momentum", "decay")),
    ]
    assert len({mark, *others}) == 6


def test_values_at_the_start_are_those_of_the_loss() -> None:
    plan, model = plan_of(zeros), zeros()
    values = start_values(plan, model)
    assert values["loss"] == pytest.approx(math.log(2))
    near = [p.detach() for p in model.parameters()]
    assert all(torch.equal(p, torch.full_like(p, 12**-0.5)) for p in near)
    losses = nn.functional.cross_entropy(model(INPUTS[:16]), LABELS[:16])
    assert values["loss nearby"] == pytest.approx(float(losses.detach()))


def test_the_state_of_the_optimizer_and_the_clipping_are_in_the_fingerprint() -> None:
    model, optimizer = trained(STACKED["Adam"])

    def now(**settings: Any) -> str:
        plan = plan_at(model, optimizer, **settings)
        return fingerprint(plan, plan.model(0))

    first = now()
    assert now() == first
    assert now(max_grad_norm=1.0) != first
    next(iter(optimizer.state.values()))["exp_avg"].mul_(1.5)
    second = now()
    assert second != first
    optimizer.param_groups[0]["betas"] = (0.5, 0.5)
    assert now() != second


@pytest.mark.parametrize("how", ["another model", "no gradient"])
def test_a_loss_that_does_not_depend_on_what_is_trained_is_refused(how: str) -> None:
    model, optimizer = trained()

    def losses(given: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        outputs = model(batch[0]) if how == "another model" else given(batch[0]).detach()
        return nn.functional.cross_entropy(outputs, batch[1], reduction="none")

    plan = plan_at(model, optimizer, losses)
    with pytest.raises(gn.ModelError, match="does not depend on the model that is trained"):
        start_values(plan, plan.model(0))
