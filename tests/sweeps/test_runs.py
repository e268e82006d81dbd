"""The best and the largest stable learning rates of a table of runs."""

from __future__ import annotations

import math

import pytest

import gradnoise as gn
from gradnoise.statistics.estimate import Status
from gradnoise.training.record import Record, Run
from tests.small_runs import TEST, accuracy, swept
from tests.starts import ended

LOST = math.inf


def test_both_budgets_are_swept() -> None:
    found = swept(steps=5)
    assert {r.run.steps for r in found.under("steps").records} == {5}
    assert {r.run.steps for r in found.under("epochs").records} == {16, 8}
    for ask in (found.best, found.stability_limit):
        with pytest.raises(gn.ArgumentError, match="these runs have two budgets"):
            ask()
    with pytest.raises(gn.ArgumentError, match="no run has the `budget` 'hours'"):
        found.under("hours")
    assert "equal steps, B =" in str(found)


def test_the_best_is_the_lowest_mean_over_seeds(found: gn.Sweep) -> None:
    best = found.best()[4]
    own = [r.train_loss for r in found.records if (r.run.batch_size, r.run.lr) == (4, 0.4)]
    assert best.lr == 0.4
    assert best.value == pytest.approx(sum(own) / 2)
    assert best.stderr == pytest.approx(abs(own[0] - own[1]) / 2)
    assert best.at_edge


def test_of_a_metric_the_largest_is_best() -> None:
    found = swept(test_data=TEST, metrics={"accuracy": accuracy})
    best = found.best("accuracy")[4]
    means = {
        lr: sum(r.metrics["accuracy"] for r in found.records if r.run.lr == lr and
                r.run.batch_size == 4) / 2
        for lr in found.lrs
    }  # fmt: skip
    assert best.value == max(means.values())
    assert "accuracy" in str(found)
    with pytest.raises(gn.ArgumentError, match="`by` = 'speed' was not measured"):
        found.best("speed")


def test_what_belongs_to_all_runs_is_kept_under_one_budget() -> None:
    record = Record(Run(4, 0.1, 0, "samples", 9), False, None, 1.0, 0.5, averaged_loss=0.4)
    found = gn.Branches((record,), {}, parts=(record,), lr=0.1, batch_size=4)
    assert found.under("samples") == found
    assert found.best("averaged_loss")[4].value == 0.4


def test_where_nothing_is_trained_no_rate_is_best() -> None:
    def records(*losses: float) -> tuple[Record, ...]:
        lrs = (0.1, 0.2, 0.4)
        pairs = zip(lrs, losses, strict=True)
        return tuple(Record(Run(4, lr, 0, "x", 9), False, None, 1.0, loss) for lr, loss in pairs)

    assert gn.Sweep(records(1.0, 1.0, 1.0), {}).best() == {}
    assert gn.Sweep(records(1.0, 1.0, 0.9), {}).best()[4].lr == 0.4
    assert gn.Sweep(records(1.0, 1.0, 1.0)[:1], {}).best()[4].lr == 0.1  # there is no other


def test_the_limit_of_stability_is_the_mean_over_seeds_within_what_was_tried() -> None:
    """Seeds diverge from 0.2, 0.4 and 0.8 on; the last one also held a rate above."""
    records = (
        *ended(4, 0.1, (0.5, 0.5, 0.5)),
        *ended(4, 0.2, (LOST, 0.5, 0.5)),
        *ended(4, 0.4, (LOST, LOST, 0.5)),
        *ended(4, 0.8, (LOST, LOST, LOST)),
        *ended(4, 1.6, (LOST, LOST, 0.5)),
        *ended(16, 0.1, (0.5, 0.5)),
        *ended(16, 0.2, (LOST, LOST)),
    )
    found = gn.Sweep(records, {}).stability_limit()
    limit, other = found[4], found[16]
    assert (limit.low, limit.high, limit.samples) == (0.1, 0.8, 3)
    assert float(limit) == pytest.approx(math.sqrt(0.2 * 0.4))
    assert limit.is_resolved
    assert math.isnan(limit.level)
    assert math.isnan(limit.stderr)
    assert float(other) == pytest.approx(0.1 * math.sqrt(2))
    assert (other.low, other.high) == (0.1, 0.2)


@pytest.mark.parametrize(
    ("first", "then", "low", "high"),
    [
        ((0.5, 0.5), (LOST, 0.5), 0.1, math.inf),
        ((0.5, LOST), (LOST, LOST), 0.0, 0.2),
        ((0.5, LOST), (0.5, 0.5), 0.0, math.inf),
        ((LOST, LOST), (LOST, LOST), 0.0, 0.1),
    ],
)
def test_where_a_seed_is_not_known_on_both_sides_there_is_only_a_bound(
    first: tuple[float, float], then: tuple[float, float], low: float, high: float
) -> None:
    found = gn.Sweep((*ended(4, 0.1, first), *ended(4, 0.2, then)), {}).stability_limit()[4]
    assert math.isnan(float(found))
    assert (found.low, found.high) == (low, high)
    assert found.status is Status.BEYOND_GRID
