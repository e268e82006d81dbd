"""Checks of estimates from arrays: all hold, and a biased estimator fails them."""

from __future__ import annotations

from typing import Any

import pytest
from torch import Tensor

from gradnoise.validation import arrays
from tests.validating import Group, assert_all_hold


@pytest.mark.parametrize("group", [arrays.gradients, arrays.norms, arrays.tails])
def test_every_check_of_another_seed_holds(group: Group) -> None:
    assert_all_hold(group, 2)


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
