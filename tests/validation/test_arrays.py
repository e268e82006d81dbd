"""Checks of estimates from arrays: all hold, and a biased estimator fails them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from torch import Tensor

from gradnoise.validation import arrays
from gradnoise.validation.check import Check

Group = Callable[[int], Iterator[Check]]


@pytest.mark.parametrize("group", [arrays.gradients, arrays.norms, arrays.tails])
def test_every_check_of_another_seed_holds(group: Group) -> None:
    checks = list(group(11))
    assert len(checks) >= 2
    assert [check for check in checks if not check.holds] == []


def test_a_biased_estimator_fails_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that are half as long again."""
    unbiased = arrays.noise_scale_from_gradients

    def biased(rows: Tensor, **options: Any) -> Any:
        return unbiased(1.5 * rows, **options)

    monkeypatch.setattr(arrays, "noise_scale_from_gradients", biased)
    checks = list(arrays.gradients(0))
    assert {check.quantity for check in checks if not check.holds} >= {
        "trΣ from rows",
        "|G|² from rows",
    }
