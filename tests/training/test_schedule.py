"""How the learning rate changes within a run."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import gradnoise as gn
from gradnoise.training.schedule import as_schedule


@pytest.mark.parametrize(
    ("name", "factors"),
    [("linear", (1.0, 0.75, 0.5, 0.25)), ("cosine", (1.0, 0.5 + math.sqrt(0.125), 0.5, 0.146447))],
)
def test_a_name_is_a_factor_by_what_is_done(name: str, factors: tuple[float, ...]) -> None:
    schedule = as_schedule(name)
    assert schedule is not None
    assert [schedule(done) for done in (0.0, 0.25, 0.5, 0.75)] == pytest.approx(factors, abs=1e-6)
    assert schedule(1.0) == pytest.approx(0.0, abs=1e-12)


def test_a_function_and_none_stay_as_they_are() -> None:
    assert as_schedule(math.sin) is math.sin
    assert as_schedule(None) is None


@pytest.mark.parametrize("given", ["constant", "", 0.5, ["linear"]])
def test_anything_else_is_refused(given: Any) -> None:
    with pytest.raises(gn.ArgumentError, match="`schedule` must be 'linear' or 'cosine', or a fu"):
        as_schedule(given)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (lambda done: None, r"return a number \(TypeError: float"),
        (lambda: 1.0, r"must take the fraction of a run that is done, such as 0, and"),
        (lambda done: 1 / done, "division by zero"),
        (torch.optim.lr_scheduler.CosineAnnealingLR, "A scheduler of torch.optim does not"),
        (lambda done: math.nan, "finite and not below 0; after 0.0, 0.25, 0.5, 0.75 of a run it"),
        (lambda done: 0.5 - done, "it returned 0.5, 0.25, 0, -0.25"),
        (lambda done: math.inf, "it returned inf, inf, inf, inf"),
        (lambda done: 0.0, "it returned 0, 0, 0, 0"),
        (lambda done: "fast", "could not convert string"),
    ],
)
def test_a_function_that_is_none_is_refused_before_anything_is_trained(
    given: Any, said: str
) -> None:
    with pytest.raises(gn.ArgumentError, match=said):
        as_schedule(given)


@pytest.mark.parametrize("given", [lambda done: min(4 * done, 1.0), lambda done: torch.tensor(1.0)])
def test_a_warm_up_and_tensors_are_factors(given: Any) -> None:
    assert as_schedule(given) is given
