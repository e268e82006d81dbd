"""Checks of models: all hold on samples of a fixed seed."""

from __future__ import annotations

import pytest

import gradnoise as gn
from gradnoise.validation import noise
from tests.validating import Group, assert_all_hold


@pytest.mark.parametrize("group", [noise.profiles, noise.whole_population, noise.single])
def test_every_check_of_another_seed_holds(group: Group) -> None:
    assert_all_hold(group, 8)


def test_a_wrong_truth_fails_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A problem with the exact answers of another."""

    class Wrong(gn.toy.FlippedLogistic):
        def truth(self) -> gn.toy.Truth:
            return gn.toy.FlippedLogistic(0.5, 1.0).truth()

    monkeypatch.setattr(noise, "TOYS", {"wrong": Wrong(0.3)})
    failed = {check.quantity for check in noise.profiles(0) if not check.holds}
    assert {"loss", "trace_cov", "sharpness"} <= failed
