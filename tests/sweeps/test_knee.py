"""The knee through brackets: what they are, a known curve found again, what a grid cannot tell."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import gradnoise as gn
from gradnoise.sweeps.knee import Bracket, brackets, fit_knee, with_lost
from gradnoise.training.record import Record, Run

SIZES = [1, 2, 4, 8, 16, 32, 64, 128]


def record(batch_size: int, lr: float, diverged: bool, seed: int = 0) -> Record:
    return Record(Run(batch_size, lr, seed, "steps", 10), diverged, None, 1.0, 0.5)


def grid(top: float, knee: float, spread: float, seed: int, seeds: int = 2) -> list[Bracket]:
    """Thresholds around a knee, seen on a grid of factors of √2."""
    source, rates = np.random.default_rng(seed), 2.0 ** (np.arange(-30, 20) / 2)
    found = []
    for size in SIZES:
        for each in range(seeds):
            limit = top / (1 + knee / size) * math.exp(spread * source.normal())
            stable, diverged = rates[rates <= limit], rates[rates > limit]
            found.append(Bracket(size, each, float(stable[-1]), float(diverged[0])))
    return found


class TestBrackets:
    def test_they_lie_between_stable_and_diverged(self) -> None:
        own = [record(4, lr, lr > 0.3) for lr in (0.1, 0.2, 0.4, 0.8)]
        (bracket,) = brackets(own)
        assert (bracket.stable, bracket.diverged) == (0.2, 0.4)
        assert bracket.middle == pytest.approx(math.sqrt(0.08))

    def test_a_stable_run_beyond_one_that_diverged_does_not_count(self) -> None:
        own = [record(4, 0.1, False), record(4, 0.2, True), record(4, 0.4, False)]
        (bracket,) = brackets(own)
        assert (bracket.stable, bracket.diverged) == (0.1, 0.2)

    def test_they_are_open_where_all_or_none_diverged(self) -> None:
        all_of_them = brackets([record(4, lr, True) for lr in (0.1, 0.2)])[0]
        none = brackets([record(4, lr, False) for lr in (0.1, 0.2)])[0]
        assert (all_of_them.stable, all_of_them.diverged, all_of_them.middle) == (0.0, 0.1, 0.1)
        assert (none.stable, none.diverged, none.middle) == (0.2, math.inf, 0.2)

    def test_there_is_one_for_every_batch_size_and_seed(self) -> None:
        own = [record(size, 0.1, False, seed) for size in (8, 2) for seed in (1, 0)]
        assert [(b.batch_size, b.seed) for b in brackets(own)] == [(2, 0), (2, 1), (8, 0), (8, 1)]


def test_what_a_smaller_rate_gains_and_a_larger_one_loses_has_diverged() -> None:
    """A network that died in one step ends at the loss of guessing, a little below its start."""

    def ended(lr: float, loss: float, seed: int = 0) -> Record:
        return replace(record(4, lr, False, seed), train_loss=loss)

    own = [ended(0.01, 0.99), ended(0.1, 0.3), ended(1.0, 0.98), ended(1.0, 0.98, seed=1)]
    assert [each.diverged for each in with_lost(own)] == [False, False, True, False]
    assert brackets(with_lost(own))[0].diverged == 1.0


def on(lr: float, averaged: float, start: float = 1.0, **changes: Any) -> Record:
    """A run that goes on from a trained model; at the last weights its loss is high."""
    own = record(4, lr, changes.pop("diverged", False))
    run = replace(own.run, **changes)
    return replace(own, run=run, start_loss=start, train_loss=1.3, averaged_loss=averaged)


def lost(*records: Record) -> list[bool]:
    return [each.diverged for each in with_lost(records, averaged=True)]


def test_a_run_that_goes_on_is_lost_if_it_gains_a_fifth_less_than_a_smaller_rate() -> None:
    """By the averaged losses; the order of the records does not matter."""
    assert lost(on(0.1, 0.5), on(0.2, 0.89), on(0.4, 0.91)) == [False, False, True]
    assert lost(on(0.4, 0.91), on(0.1, 0.5)) == [True, False]
    assert lost(on(0.1, 0.5), on(0.2, 0.8), on(0.4, 0.91)) == [False, False, True]  # of the best
    assert lost(on(0.1, 0.8), on(0.2, 0.5), on(0.4, 0.91)) == [False, False, True]
    assert lost(on(0.1, 0.91), on(0.2, 0.5)) == [False, False]  # slow


def test_a_run_is_not_lost_where_no_smaller_rate_gains_a_tenth() -> None:
    assert lost(on(0.1, 0.875), on(0.2, 1.2)) == [False, True]
    assert lost(on(0.1, 0.91), on(0.2, 1.2)) == [False, False]
    assert lost(on(0.1, 0.5, diverged=True), on(0.2, 1.2)) == [True, False]


@pytest.mark.parametrize(
    "other", [{"batch_size": 8}, {"seed": 1}, {"budget": "1/2"}, {"steps": 7}]
)  # fmt: skip
def test_a_run_of_another_kind_does_not_show_it(other: dict[str, Any]) -> None:
    assert lost(on(0.1, 0.5), on(0.2, 1.2, **other)) == [False, False]


def test_of_a_negative_loss_a_tenth_is_of_its_size() -> None:
    assert lost(on(0.1, -1.05, -1.0), on(0.2, -0.99, -1.0)) == [False, False]
    assert lost(on(0.1, -1.2, -1.0), on(0.2, -0.99, -1.0)) == [False, True]


class TestKnee:
    @pytest.mark.parametrize(("top", "knee"), [(3.0, 10.0), (0.02, 2.0)])
    def test_a_known_curve_is_found_again(self, top: float, knee: float) -> None:
        found = fit_knee(grid(top, knee, 0.1, seed=0))
        assert found.saturation.low < top < found.saturation.high
        assert found.batch_size.low < knee < found.batch_size.high
        assert float(found.saturation) == pytest.approx(top, rel=0.2)
        assert float(found.batch_size) == pytest.approx(knee, rel=0.35)
        assert found.saturation.is_resolved
        assert found.lr(knee) == pytest.approx(float(found.saturation) / 2, rel=0.35)

    def test_a_line_alone_has_no_knee(self) -> None:
        """Limits in proportion to B all the way: the level is at least the last of them."""
        found = fit_knee(grid(1e6, 1e6, 0.05, seed=1))
        assert found.batch_size.high == math.inf
        assert found.batch_size.status is gn.Status.BEYOND_GRID
        assert found.saturation.low > 64
        assert "beyond the grid" in str(found.batch_size)

    def test_a_level_alone_has_its_knee_below_the_grid(self) -> None:
        found = fit_knee(grid(2.0, 1e-9, 0.05, seed=2))
        assert found.batch_size.low == 0
        assert found.batch_size.high < 2
        assert found.saturation.low < 2.0 < found.saturation.high

    def test_more_scatter_is_more_doubt(self) -> None:
        calm, wild = (fit_knee(grid(3.0, 10.0, spread, seed=3)) for spread in (0.05, 0.5))
        assert wild.spread > 3 * calm.spread
        for name in ("saturation", "batch_size"):
            first, second = getattr(calm, name), getattr(wild, name)
            assert second.high / second.low > 1.5 * first.high / first.low

    @pytest.mark.parametrize(
        "found",
        [
            [Bracket(4, 0, 0.1, 0.2), Bracket(8, 0, 0.1, 0.2)],
            [Bracket(size, 0, 0.1, math.inf) for size in (2, 4, 8)],
        ],
    )
    def test_too_little_is_refused(self, found: list[Bracket]) -> None:
        with pytest.raises(gn.ArgumentError, match="the fit of B_c needs three batch sizes"):
            fit_knee(found)
