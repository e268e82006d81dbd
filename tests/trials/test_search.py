"""Learning rates around a centre, and further ones where the best is at an end."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from gradnoise.training.record import Record, Run
from gradnoise.trials.search import (
    Length,
    SizeSearch,
    best_rate,
    best_rates,
    search,
    search_limit,
)
from gradnoise.trials.trials import samples_of
from tests.starts import ended


def search_all(trials: Any, sizes: Sequence[int], *how: Any) -> tuple[list[Record], list[Record]]:
    """The runs at these batch sizes in turn, and the parts; `how` as for `SizeSearch`."""
    lrs, factors, growth, length, *others = how
    whole = length.whole(max(sizes))
    searched = SizeSearch(trials, sizes[0], lrs, factors, growth, whole, *others)
    for size in sizes:
        searched.add(size)
    searched.take_parts()
    return searched.records, searched.parts


class Pretended:
    """Trials whose losses are a function of the run."""

    def __init__(self, loss: Callable[[Run], float], budget: float = math.inf) -> None:
        self.loss, self.budget, self.spent = loss, budget, 0
        self.asked: list[tuple[int, float, str]] = []

    def can_pay(self, runs: Sequence[Run]) -> bool:
        return self.spent + sum(run.steps * run.batch_size for run in runs) <= self.budget

    def run(self, runs: Sequence[Run]) -> list[Record]:
        records = []
        for run in runs:
            loss = self.loss(run)
            self.asked.append((run.batch_size, run.lr, run.budget))
            records.append(
                Record(run, loss == math.inf, None, 9.0, loss, averaged_loss=loss, late_loss=loss)
            )
        self.spent += samples_of(records)
        return records


def near(*centres: float) -> Callable[[Run], float]:
    """Best at these rates, at 1 sample, 10, 100, ...; diverges above 4 times that."""

    def loss(run: Run) -> float:
        centre = centres[round(math.log10(run.batch_size))]
        return math.inf if run.lr > 4 * centre else 1 + abs(math.log(run.lr / centre))

    return loss


ONE = Length(100, (0,))


def rates(trials: Any, size: int = 1) -> list[float]:
    whole = [lr for own, lr, budget in trials.asked if own == size and budget == "samples"]
    return sorted(set(whole))


@pytest.mark.parametrize(
    ("best", "further", "tried"),
    [
        (1.0, 3, [0.5, 1, 2]),
        (0.25, 3, [0.125, 0.25, 0.5, 1, 2]),
        (8.0, 3, [0.5, 1, 2, 4, 8, 16]),
        (8.0, 1, [0.5, 1, 2, 4]),
        (8.0, 0, [0.5, 1, 2]),
        (0.01, 3, [0.0625, 0.125, 0.25, 0.5, 1, 2]),
    ],
)
def test_it_goes_beyond_an_end_as_often_as_allowed(
    best: float, further: int, tried: list[float]
) -> None:
    trials: Any = Pretended(near(best))
    records = search(trials, 1, [0.5, 1, 2], ONE, further)
    assert rates(trials) == tried
    assert sorted({r.run.lr for r in records}) == tried


@pytest.mark.parametrize(
    ("limits", "first", "tried"),
    [
        ((3.0,), [0.5], [0.5, 1, 2, 4]),
        ((3.0,), [8.0], [2, 4, 8]),
        ((3.0,), [1.0, 8.0], [1, 8**0.5, 8**0.75, 8]),  # halfway until a factor of 2 apart
        ((3.0, 12.0), [2.0, 4.0], [2, 4, 8, 16]),
        ((0.7, 12.0), [2.0, 4.0], [0.5, 1, 2, 4, 8, 16]),
        ((3.0,), [2.0, 4.0], [2, 4]),
    ],
)
def test_it_finds_for_every_seed_where_runs_begin_to_diverge(
    limits: tuple[float, ...], first: list[float], tried: list[float]
) -> None:
    trials: Any = Pretended(lambda run: math.inf if run.lr > limits[run.seed] else 1.0)
    length = Length(100, tuple(range(len(limits))))
    given = trials.run(length.runs(1, first))
    records = search_limit(trials, 1, given, length)
    assert sorted({r.run.lr for r in records}) == pytest.approx(tried)
    assert len(given) == len(first) * len(limits)  # what was handed over is not extended


def dead(run: Run) -> float:
    """From a loss of 9: small rates train, above 3 units die, above 30 it diverges."""
    return math.inf if run.lr > 30 else 10.0 if run.lr > 3 else 5.0


@pytest.mark.parametrize("further", [search_limit, search])
def test_a_network_that_died_has_diverged(further: Any) -> None:
    trials: Any = Pretended(dead)
    if further is search:
        records = search(trials, 1, [2.0, 4.0], ONE, 0)
    else:
        records = search_limit(trials, 1, trials.run(ONE.runs(1, [2.0])), ONE)
    assert {r.run.lr: r.diverged for r in records} == {2.0: False, 4.0: True}


def test_in_shorter_runs_it_has_diverged_as_well() -> None:
    trials: Any = Pretended(lambda run: 10.0 if run.lr > 3 and run.steps < 100 else 5 / run.lr)
    found, parts = search_all(trials, [1], [0.5, 1, 2], [1], 0.5, ONE, 0)
    assert not any(r.diverged for r in found)
    assert {r.run.lr: r.diverged for r in parts} == {2.0: False, 4.0: True}


def test_where_the_first_rate_kills_the_network_smaller_ones_show_it() -> None:
    """The loss of guessing, 9.5, is above the start of 9; of the rates tried only 2.5 trains."""

    def ends(run: Run) -> float:
        return 9.5 if 3 < run.lr <= 30 else dead(run)

    trials: Any = Pretended(ends)
    records = search_limit(trials, 1, trials.run(ONE.runs(1, [10.0])), ONE)
    assert rates(trials) == [2.5, 5, 10]
    assert {r.run.lr: r.diverged for r in records} == {2.5: False, 5.0: True, 10.0: True}


def test_parts_of_less_than_a_step_are_left_out() -> None:
    trials: Any = Pretended(near(1.0, 1.0))
    _, parts = search_all(trials, [16], [1.0], [1], 0.5, Length(64, (0,)), 0)
    assert {r.run.budget for r in parts} == {"1/2 of the samples", "1/4 of the samples"}


def test_a_network_is_judged_by_its_averaged_losses_alone() -> None:
    """At the last weights all are high, whether they train or not."""

    class Noisy(Pretended):
        def run(self, runs: Sequence[Run]) -> list[Record]:
            return [replace(record, train_loss=8.9) for record in super().run(runs)]

    trials: Any = Noisy(dead)
    given = search(trials, 1, [2.0, 4.0], ONE, 0)
    assert [r.diverged for r in given] == [False, True]
    trials = Noisy(dead)
    records = search_limit(trials, 1, trials.run(ONE.runs(1, [2.0])), ONE)
    assert [r.diverged for r in records] == [False, True]
    trials = Noisy(lambda run: 10.0 if run.lr > 3 and run.steps < 100 else 5 / run.lr)
    _, parts = search_all(trials, [1], [0.5, 1, 2], [1], 0.5, ONE, 0)
    assert {r.run.lr: r.diverged for r in parts} == {2.0: False, 4.0: True}


@pytest.mark.parametrize(
    ("ends", "first"),
    [
        ({1: 8.95, 2: 8.95}, [1.0]),  # slow
        ({1: 8.95, 2: 9.5}, [1.0, 2.0]),  # slow, and one that rises
        ({1: 9.01, 2: 5.0}, [1.0, 2.0]),  # the larger one trained
    ],
)
def test_it_goes_down_only_where_the_smallest_rate_may_have_killed_the_network(
    ends: dict[int, float], first: list[float]
) -> None:
    trials: Any = Pretended(lambda run: ends.get(round(run.lr), math.inf))
    search_limit(trials, 1, trials.run(ONE.runs(1, first)), ONE)
    assert rates(trials) == [1, 2, 4]


def test_rates_that_are_halved_because_a_seed_diverged_are_not_counted_as_looked_for() -> None:
    """Seed 0 diverges above 64, both are dead above 7, so that four more are halved."""

    def ends(run: Run) -> float:
        return math.inf if run.lr > 64 and run.seed == 0 else 9.5 if run.lr > 7 else 5.0

    trials: Any = Pretended(ends)
    length = Length(100, (0, 1))
    search_limit(trials, 1, trials.run(length.runs(1, [1024.0])), length)
    assert rates(trials) == [2.0**k for k in range(2, 11)]


def test_it_does_not_look_for_smaller_rates_for_ever() -> None:
    """Where the loss rises a little at every rate, and where it does so for one of two seeds."""
    for seeds in ((0,), (0, 1)):
        trials: Any = Pretended(
            lambda run: math.inf if run.lr > 3 else 5.0 if run.seed else 9.01
        )  # fmt: skip
        length = Length(100, seeds)
        search_limit(trials, 1, trials.run(length.runs(1, [1.0])), length)
        assert rates(trials) == [1 / 16, 1 / 8, 1 / 4, 1 / 2, 1, 2, 4]


def test_a_smallest_rate_that_diverged_at_a_finite_loss_is_halved() -> None:
    def loss(run: Run) -> float:
        return 5.0 if run.lr < 1 else 20.0

    trials: Any = Pretended(loss)
    given = [replace(r, diverged=True) for r in trials.run(ONE.runs(1, [1.0]))]
    search_limit(trials, 1, given, ONE)
    assert rates(trials) == [0.5, 1]


def test_the_wider_of_two_brackets_is_halved_first() -> None:
    """Seed 0 between 1 and 64, seed 1 between 32 and 64."""
    limits = (1.5, 40.0)
    trials: Any = Pretended(lambda run: math.inf if run.lr > limits[run.seed] else 5.0)
    length = Length(100, (0, 1))
    search_limit(trials, 1, trials.run(length.runs(1, [1.0, 32.0, 64.0])), length)
    assert trials.asked[6] == (1, pytest.approx(32**0.5), "samples")
    assert min(rates(trials)) == 1


def test_rates_with_rounding_errors_are_a_factor_of_two_apart() -> None:
    trials: Any = Pretended(lambda run: math.inf if run.lr > 0.15 else 5.0)
    given = trials.run(ONE.runs(1, [0.1, math.nextafter(0.2, 1)]))
    assert len(search_limit(trials, 1, given, ONE)) == 2


def test_it_stops_where_nothing_diverges_and_where_the_budget_does() -> None:
    trials: Any = Pretended(lambda run: 1.0)
    search_limit(trials, 1, trials.run(ONE.runs(1, [1.0])), ONE)
    assert rates(trials) == [2.0**k for k in range(13)]
    trials = Pretended(lambda run: 1.0, budget=350)
    search_limit(trials, 1, trials.run(ONE.runs(1, [1.0])), ONE)
    assert rates(trials) == [1, 2, 4]


def test_limits_are_looked_for_at_every_batch_size_if_asked_and_leave_the_best_alone() -> None:
    found = []
    for stability in (False, True):
        trials: Any = Pretended(near(1.0, 1.0))
        search_all(trials, [1, 10], [0.5, 1, 2], [0.5, 1, 2], 0.0, ONE, 0, stability)
        found.append([rates(trials, 1), rates(trials, 10)])
    assert found == [[[0.5, 1, 2]] * 2, [[0.5, 1, 2, 4, 8]] * 2]


def test_where_everything_diverges_it_goes_down() -> None:
    trials: Any = Pretended(lambda run: math.inf)
    search(trials, 1, [0.5, 1, 2], ONE, 2)
    assert rates(trials) == [0.125, 0.25, 0.5, 1, 2]


def test_it_stops_where_the_budget_does() -> None:
    trials: Any = Pretended(near(8.0), budget=450)
    search(trials, 1, [0.5, 1, 2], ONE, 3)
    assert rates(trials) == [0.5, 1, 2, 4]


def test_the_next_batch_size_is_searched_around_the_best_of_the_one_before() -> None:
    """From 1 at B = 1: √10 at 10; linear scaling: 10."""
    for growth in (0.5, 1.0):
        trials: Any = Pretended(near(1.0, 10.0**growth))
        search_all(trials, [1, 10], [0.25, 1, 4], [0.5, 1, 2], growth, ONE, 3)
        assert rates(trials, 10) == pytest.approx([f * 10**growth for f in (0.5, 1, 2)])


def test_a_batch_size_without_a_stable_rate_does_not_move_the_centre() -> None:
    """Scaled from the last that had one: 1 at B = 1, so 100 at B = 100 by linear scaling."""

    def loss(run: Run) -> float:
        return math.inf if run.batch_size == 10 else near(1.0, 1.0, 100.0)(run)

    trials: Any = Pretended(loss)
    search_all(trials, [1, 10, 100], [0.5, 1, 2], [0.5, 1, 2], 1.0, ONE, 0)
    assert rates(trials, 100) == pytest.approx([50, 100, 200])


def test_a_batch_size_is_searched_around_the_best_of_the_nearest_one_before() -> None:
    """From 16 down to 4, and from 16, not from 4, up to 64."""
    best = {16: 1.0, 4: 0.25, 64: 1.0}
    trials: Any = Pretended(lambda run: 1 + abs(math.log(run.lr / best[run.batch_size])))
    search_all(trials, [16, 4, 64], [0.5, 1, 2], [0.5, 1, 2], 0.0, ONE, 2)
    assert rates(trials, 4) == [0.125, 0.25, 0.5, 1, 2]
    assert rates(trials, 64) == [0.5, 1, 2]
    assert {size for size, _, budget in trials.asked if budget != "samples"} == {4}


def test_a_batch_size_that_cannot_be_paid_is_left_out() -> None:
    trials: Any = Pretended(near(1.0, 1.0), budget=350)
    records, parts = search_all(trials, [10, 1], [0.5, 1, 2], [0.5, 1, 2], 0.0, ONE, 0)
    assert {r.run.batch_size for r in records} == {10}
    assert {r.run.batch_size for r in parts} == {10}


def test_shorter_runs_are_made_at_the_smallest_batch_size() -> None:
    trials: Any = Pretended(near(1.0, 1.0))
    records, parts = search_all(trials, [1, 10], [0.5, 1, 2], [0.5, 1, 2], 0.0, ONE, 0)
    assert {r.run.batch_size for r in parts} == {1}
    assert {(r.run.budget, r.run.steps) for r in parts} == {
        ("1/2 of the samples", 50), ("1/4 of the samples", 25), ("1/8 of the samples", 12),
    }  # fmt: skip
    assert {r.run.lr for r in parts} == {1.0, 2.0}
    assert {r.run.budget for r in records} == {"samples"}


@pytest.mark.parametrize(
    ("samples", "sizes", "steps", "each"),
    [
        (100, [1, 8, 64], {64, 8, 1}, {64}),
        (256, [1, 8, 64], {256, 32, 4}, {256}),
        (64, [3, 10], {20, 6}, {60}),
        (64, [3, 16], {21, 4}, {63, 64}),
    ],
)
def test_all_take_equally_many_samples_and_never_more_than_said(
    samples: int, sizes: list[int], steps: set[int], each: set[int]
) -> None:
    trials: Any = Pretended(lambda run: 1.0)
    records, _ = search_all(trials, sizes, [1.0], [1.0], 0.0, Length(samples, (0,)), 0)
    assert {r.run.steps for r in records} == steps
    assert {r.run.steps * r.run.batch_size for r in records} == each


def test_a_run_has_a_step_at_least() -> None:
    assert [run.steps for run in Length(3, (0, 1)).runs(8, [0.1])] == [1, 1]


def test_the_best_rates_are_by_either_loss_of_stable_runs_alone() -> None:
    records = [
        *ended(4, 0.1, (0.3, 0.3), (0.3, 0.3)),
        *ended(4, 0.2, (0.4, 0.4), (0.2, 0.2)),
        *ended(4, 0.4, (0.1, math.inf)),
    ]
    assert best_rates(records) == (0.1, 0.2)
    assert best_rate(records, "averaged_loss") == 0.2
    assert best_rates(records[4:]) is None
    assert best_rates([]) is None


def test_all_are_rounded_to_the_largest_batch_whatever_the_order() -> None:
    trials: Any = Pretended(lambda run: 1.0)
    records, _ = search_all(trials, [4, 16, 8], [1.0], [1.0], 0.0, Length(120, (0,)), 0)
    assert {r.run.steps * r.run.batch_size for r in records} == {112}


def test_where_nothing_holds_the_next_batch_size_begins_lower() -> None:
    """0.25 to 4 diverge at B = 1; scaled by √10 from 0.125 on."""
    trials: Any = Pretended(lambda run: math.inf if run.batch_size == 1 else 1.0)
    search_all(trials, [1, 10], [0.25, 1, 4], [0.5, 1, 2], 0.5, ONE, 0)
    assert rates(trials, 10) == pytest.approx([0.125 * 10**0.5 * f for f in (0.5, 1, 2)])


def test_rates_are_scaled_also_where_the_first_batch_size_cannot_be_paid() -> None:
    trials: Any = Pretended(lambda run: 1.0, budget=195)
    search_all(trials, [100, 16], [1.0, 2.0], [0.5, 1.0], 1.0, Length(100, (0,)), 0)
    assert rates(trials, 16) == pytest.approx([2**0.5 * 0.16 * f for f in (0.5, 1.0)])


def test_the_middle_of_both_best_rates_goes_on() -> None:
    class Apart(Pretended):
        def run(self, runs: Sequence[Run]) -> list[Record]:
            records = super().run(runs)
            return [replace(r, averaged_loss=1 + abs(math.log(r.run.lr / 4))) for r in records]

    trials: Any = Apart(near(1.0, 1.0))
    search_all(trials, [1, 10], [0.5, 1, 2, 4], [1.0], 0.0, ONE, 0)
    assert rates(trials, 10) == pytest.approx([2.0])


def test_shorter_runs_have_a_step_and_are_paid_for() -> None:
    short: Any = Pretended(near(1.0))
    _, parts = search_all(short, [1], [1.0], [1.0], 0.0, Length(4, (0,)), 0)
    assert {r.run.steps for r in parts} == {2, 1}
    poor: Any = Pretended(near(1.0), budget=350)
    search_all(poor, [1], [0.5, 1, 2], [1.0], 0.0, ONE, 0)
    assert poor.spent <= 350


def sized(budget: float = math.inf) -> tuple[Any, SizeSearch]:
    trials: Any = Pretended(near(1.0, 1.0), budget=budget)
    length = Length(64, (0,))
    return trials, SizeSearch(trials, 16, [0.5, 1, 2], [0.5, 1, 2], 0.0, length, 0)


def test_a_smaller_batch_size_has_to_pay_for_its_parts_as_well() -> None:
    """Three runs of 64 samples, and three parts of three rates: 168 more."""
    trials, search = sized()
    assert search.can_add(4)  # nothing has held yet
    search.add(16)
    for size, needed in ((64, 3 * 64), (4, 3 * 64 + 3 * (32 + 16 + 8))):
        trials.budget = trials.spent + needed
        assert search.can_add(size)
        trials.budget -= 1
        assert not search.can_add(size)


def test_parts_are_taken_once() -> None:
    _, search = sized()
    search.add(16)
    search.take_parts()
    first = list(search.parts)
    search.take_parts()
    assert search.parts == first != []


def test_at_one_batch_size_it_may_go_further() -> None:
    for further, most in ((None, 4), (3, 16)):
        trials: Any = Pretended(near(1e9, 1.0))
        size = SizeSearch(trials, 1, [0.5, 1, 2], [0.5, 1, 2], 0.0, ONE, 1)
        size.add(1, further)
        assert max(rates(trials)) == most
