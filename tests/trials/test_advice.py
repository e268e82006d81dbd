"""What trials say: the batch size, the rate with its margin, and the sentences."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from gradnoise.training.record import Record, Run
from gradnoise.trials.advice import (
    AHEAD,
    MARGIN,
    Choice,
    LastTrial,
    _about,
    _costs,
    chosen,
    known_costs,
    likely_lower,
    lower_elsewhere,
    rose,
    unfinished,
    why_rough,
    write_reasons,
)
from gradnoise.trials.branches import Branches
from tests.starts import made_branches


def ran(
    size: int, lr: float, late: float, averaged: float, samples: int = 1024, budget: str = "samples"
) -> list[Record]:
    """Two seeds; an infinite loss has diverged."""
    return [
        Record(
            Run(size, lr, seed, budget, samples // size), late == math.inf, None, 2.0, late,
            averaged_loss=averaged, late_loss=late,
        )
        for seed in (0, 1)
    ]  # fmt: skip


def trial(
    records: list[Record], constant: float, averaged: float, stable: float, whole: bool = False
) -> LastTrial:
    """At batch size 8."""
    return LastTrial(Choice(8, constant, averaged, stable, False), records, whole)


LADDER = [
    *ran(8, 0.1, 1.5, 1.5),
    *ran(8, 0.2, 1.0, 1.1),
    *ran(8, 0.4, 1.2, 0.9),
    *ran(8, 0.8, 1.3, 1.2),
    *ran(8, 1.6, math.inf, math.inf),
]


def test_the_two_losses_have_a_best_rate_each() -> None:
    found = Choice.of(LADDER)
    assert found is not None
    assert (found.constant, found.averaged, found.stable) == (0.2, 0.4, 0.8)
    assert found.middle == pytest.approx(math.sqrt(0.08))


def test_twice_an_advised_rate_has_held() -> None:
    assert MARGIN == 2
    late_best_at_the_edge = [*ran(8, 0.4, 1.0, 1.0), *ran(8, 0.8, 0.5, 0.5)]
    found = Choice.of([*ran(8, 0.2, 1.2, 1.2), *late_best_at_the_edge], MARGIN)
    assert found is not None
    assert (found.constant, found.stable) == (0.4, 0.8)
    one_seed_diverged = ran(8, 0.8, 0.5, 0.5)[:1] + ran(8, 0.8, math.inf, math.inf)[1:]
    found = Choice.of([*ran(8, 0.2, 1.2, 1.2), *ran(8, 0.4, 1.0, 1.0), *one_seed_diverged], MARGIN)
    assert found is not None
    assert (found.constant, found.stable) == (0.2, 0.4)


def test_nothing_holds_where_nothing_is_stable() -> None:
    assert Choice.of(ran(8, 0.1, math.inf, math.inf)) is None
    assert Choice.of(ran(8, 0.1, 1.0, 1.0), MARGIN) is None  # not known whether 0.2 holds


SMALLEST = "the best constant rate, 0.100, is the smallest of the last trial"


@pytest.mark.parametrize(
    ("late", "averaged", "doubts"),
    [((1.3, 1.2, 1.5), (1.3, 1.2, 1.5), ()), ((1.5, 1.2, 1.5), (1.5, 1.4, 1.2), ()),
     ((1.1, 1.2, 1.5), (1.3, 1.2, 1.5), (SMALLEST,))],
)  # fmt: skip
def test_the_smallest_rate_that_was_tried_is_not_sure(
    late: tuple[float, ...], averaged: tuple[float, ...], doubts: tuple[str, ...]
) -> None:
    rows = zip((0.1, 0.2, 0.4), late, averaged, strict=True)
    records = [record for lr, one, other in rows for record in ran(8, lr, one, other)]
    found = Choice.of(records)
    assert found is not None
    assert why_rough(LastTrial(found, records, False), branches(1.1, 1.3)) == doubts


def test_rates_that_are_far_apart_and_a_single_seed_are_not_sure() -> None:
    one_seed = [record for record in LADDER if record.run.seed == 0]
    found = trial(one_seed, 0.1, 0.8, 1.6)
    assert why_rough(found, branches(1.1, 1.3)) == (
        "the best rates for a constant and for a decaying rate are a factor 8.00 apart",
        "there is one seed only",
    )
    found = replace(found, whole=True)  # then the constant one is known
    assert why_rough(found, branches(1.1, 1.3)) == ("there is one seed only",)


@pytest.mark.parametrize("averaged", [2.0, 2.1, math.nan])
def test_a_loss_that_did_not_fall_is_not_sure(averaged: float) -> None:
    tried = ran(8, 0.1, 1.0, averaged)
    found = why_rough(trial(tried, 0.1, 0.1, 0.4), branches(1.1, 1.3))
    assert found == ("the loss did not fall in the trial",)


@pytest.mark.parametrize(
    ("averaged", "sure"), [(0.99, False), (1.01, True), (-1.0, True), (0.0, False)]
)
def test_a_loss_that_more_than_halved_is_not_sure(averaged: float, sure: bool) -> None:
    """It began at 2. Where it falls below 0, halving means nothing."""
    tried = ran(8, 0.1, 1.0, averaged)
    found = why_rough(trial(tried, 0.1, 0.1, 0.4), branches(1.1, 1.3))
    doubt = (
        "the loss more than halved in the trial, and then the best rate depends on the length of "
        "the run: this one is for runs of about 1024 samples"
    )
    assert found == (() if sure else (doubt,))


@pytest.mark.parametrize(
    ("at", "averaged", "doubts"),
    [
        (0.4, 0.96, ()),
        (0.4, 0.94, ("the learning rate 0.400 had a loss 6 % lower, and twice of it "
                "diverged",)),
        (0.1, 0.5, ("the learning rate 0.100 had a loss 50 % lower, as less noise has in short "
                    "trials",)),
        (1.6, 0.5, ()),  # beyond a rate at which runs diverged
    ],
)  # fmt: skip
def test_a_rate_that_is_not_advised_and_had_a_lower_loss_is_not_sure(
    at: float, averaged: float, doubts: tuple[str, ...]
) -> None:
    diverged = ran(8, 0.8, math.inf, math.inf)
    records = [*ran(8, 0.2, 1.0, 1.0), *ran(8, at, 1.0, averaged), *diverged]
    assert lower_elsewhere(trial(records, 0.2, 0.2, 0.4), 0.05) == doubts


def test_whether_twice_of_a_better_rate_holds_may_not_be_known() -> None:
    records = [*ran(8, 0.2, 1.0, 1.0), *ran(8, 0.4, 1.0, 0.9), *ran(8, 1.6, math.inf, math.inf)]
    (doubt,) = lower_elsewhere(trial(records, 0.2, 0.2, 0.4), 0.05)
    assert doubt.endswith("10 % lower, and it is not known whether twice of it holds")


def test_a_negative_loss_is_compared_by_its_size() -> None:
    records = [*ran(8, 0.2, -1.0, -1.0), *ran(8, 0.4, -1.0, -1.1)]
    (doubt,) = lower_elsewhere(trial(records, 0.2, 0.2, 0.4), 0.05)
    assert doubt.startswith("the learning rate 0.400 had a loss 10 % lower")
    records = [*ran(8, 0.2, -1.0, -1.0), *ran(8, 0.4, -1.0, -1.01)]
    assert lower_elsewhere(trial(records, 0.2, 0.2, 0.4), 0.05) == ()


def test_a_batch_size_that_was_not_compared_is_not_sure() -> None:
    alone = Branches(tuple(LADDER), {})
    found = why_rough(trial(LADDER, 0.1, 0.1, 0.4), alone)
    assert found == (
        "no other batch size was tried: nothing is said about it (a larger `budget` does)",
    )


def test_the_sentences_name_what_held_and_every_doubt() -> None:
    found = write_reasons(trial(LADDER, 0.1, 0.1, 0.4), branches(1.1, 1.3), ["so"])
    assert found[0] == (
        "Batch size 8, learning rate 0.100: tried 128 steps from here on 2 seeds: holds. The "
        "learning rate 0.400 holds as well. The training loss went from 2.00 to 1.50 (at the "
        "mean weights of the last half)."
    )
    assert found[1] == "This is rough, because so."
    assert found[-1] == (
        "By this, samples for the same loss, compared with batch size 8: 1.2 times at 32, 2.2 "
        "times at 128."
    )


def test_a_trial_as_long_as_the_training_names_the_best_constant_rate() -> None:
    """0.2 by the late losses, 0.4 at averaged weights."""
    short, whole = (trial(LADDER, 0.2, 0.4, 0.8, whole) for whole in (False, True))
    assert (short.lr, short.mean(short.lr), whole.lr, whole.mean(whole.lr)) == (0.4, 0.9, 0.2, 1.0)
    assert [record.run.lr for record in whole.runs] == [0.2, 0.2]
    found = write_reasons(whole, branches(1.1, 1.3), [])
    assert found[0].startswith(
        "Batch size 8, learning rate 0.200: tried 128 steps from here, as long as the training "
        "ahead, on 2 seeds: holds. The learning rate 0.800 holds as well."
    )
    assert found[0].endswith("from 2.00 to 1.00 (mean of the batches in the last quarter).")
    assert found[1] == (
        "This is for a learning rate that stays constant. For one that falls to zero, 0.400 "
        "looked best (loss at the mean weights of the last half): `schedule` tries it."
    )
    found = write_reasons(short, branches(1.1, 1.3), [])
    assert found[1].startswith("If the rate stays constant, 0.200 had the lowest loss")
    same = trial(LADDER, 0.2, 0.2, 0.8, True)
    assert "zero" not in " ".join(write_reasons(same, branches(1.1, 1.3), []))


def test_a_loss_is_judged_by_the_one_that_the_rate_is_chosen_by() -> None:
    """At 0.1 late losses are 10 % lower, averaged ones are not."""
    records = [*ran(8, 0.1, 0.9, 1.5), *ran(8, 0.2, 1.0, 1.0), *ran(8, 0.4, 1.0, 1.0)]
    assert lower_elsewhere(trial(records, 0.2, 0.2, 0.4), 0.05) == ()
    (doubt,) = lower_elsewhere(trial(records, 0.2, 0.2, 0.4, True), 0.05)
    assert doubt.startswith("the learning rate 0.100 had a loss 10 % lower")


def test_a_critical_batch_size_that_is_not_known_is_not_explained() -> None:
    alone = Branches(tuple(LADDER[:2]), {})
    found = write_reasons(trial(LADDER, 0.1, 0.1, 0.4), alone, [])
    assert found[-1].startswith("The critical batch size is not known from these trials: several")


def branches(at_32: float, at_128: float) -> Branches:
    """Batches of 8 come to 1.0, 1.2 and 1.4 after all, half and a quarter of the samples."""
    records = [*ran(8, 0.1, 1.0, 1.0), *ran(32, 0.2, at_32, at_32), *ran(128, 0.2, at_128, at_128)]
    parts = [*ran(8, 0.1, 1.2, 1.2, 512, "1/2"), *ran(8, 0.1, 1.4, 1.4, 256, "1/4")]
    return Branches(tuple(records), {}, parts=tuple(parts))


@pytest.mark.parametrize(
    ("at_32", "at_128", "size"),
    [(1.05, 1.3, 32), (1.05, 1.06, 128), (1.15, 1.3, 8), (1.3, 1.05, 8), (math.inf, 1.05, 128)],
)
def test_the_largest_batch_that_costs_a_quarter_more_samples_is_chosen(
    at_32: float, at_128: float, size: int
) -> None:
    found = chosen(branches(at_32, at_128), 0.25)
    assert found is not None
    assert found.batch_size == size


def test_a_larger_batch_is_chosen_where_more_samples_may_be_spent() -> None:
    found = chosen(branches(1.15, 1.3), 1.0)
    assert found is not None
    assert found.batch_size == 32


@pytest.mark.parametrize(("at_128", "size"), [(1.19, 128), (1.21, 32)])
def test_where_the_loss_falls_steeply_a_larger_batch_may_not_end_much_higher(
    at_128: float, size: int
) -> None:
    """1.21 costs 1.16 times the samples of 1.0, because half of them end at 2.0."""
    records = [*ran(8, 0.1, 1.0, 1.0), *ran(32, 0.2, 1.0, 1.0), *ran(128, 0.2, at_128, at_128)]
    parts = ran(8, 0.1, 2.0, 2.0, 512, "1/2")
    found = chosen(Branches(tuple(records), {}, parts=tuple(parts)), 0.25)
    assert found is not None
    assert found.batch_size == size


def test_of_negative_losses_the_size_counts() -> None:
    """-0.85 is less than 20 % above -1.0."""
    records = [*ran(8, 0.1, -1.0, -1.0), *ran(32, 0.2, -1.0, -1.0), *ran(128, 0.2, -0.85, -0.85)]
    parts = ran(8, 0.1, 0.0, 0.0, 512, "1/2")
    found = chosen(Branches(tuple(records), {}, parts=tuple(parts)), 0.25)
    assert found is not None
    assert found.batch_size == 128


@pytest.mark.parametrize(("ahead", "told"), [(None, False), (66, False), (70, True)])
def test_where_the_trials_were_shorter_than_the_training_ahead_it_is_told(
    ahead: int | None, told: bool
) -> None:
    """Of 64 samples; a few less are for whole steps."""
    found = made_branches()
    known = replace(found, settings={**found.settings, AHEAD: ahead})
    assert (f"as the trials had; the training ahead has {ahead}: " in _about(known)) is told
    assert ("; the training ahead" in _about(known)) is told


def test_no_choice_where_every_run_diverged() -> None:
    assert chosen(Branches(tuple(ran(8, 0.1, math.inf, math.inf)), {}), 0.25) is None


@pytest.mark.parametrize(("larger", "at_end"), [(0.1, False), (0.3, True)])
def test_the_smallest_rate_is_an_end_only_where_no_larger_one_was_better(
    larger: float, at_end: bool
) -> None:
    """0.2 is taken because 0.8 diverges, whether 0.4 was better or not."""
    records = [
        *ran(4, 0.2, 0.2, 0.2), *ran(4, 0.4, larger, larger), *ran(4, 0.8, math.inf, math.inf),
    ]  # fmt: skip
    choice = Choice.of(records, 2.0)
    assert choice is not None
    assert (choice.constant, choice.stable, choice.at_end) == (0.2, 0.4, at_end)


def test_where_losses_do_not_tell_what_batch_sizes_cost_the_one_in_use_stays() -> None:
    """All end at 0: nothing is said for a smaller batch, nor for a larger one."""
    flat = [record for size in (4, 8, 32) for record in ran(size, 0.1, 0.0, 0.0)]
    same = Branches(tuple(flat), {}, lr=0.1, batch_size=8)
    choice = chosen(same, 0.25)
    assert choice is not None
    assert choice.batch_size == 8
    found = why_rough(LastTrial(choice, ran(8, 0.1, 1.5, 1.5), False), same)
    assert found[-1] == "the losses of the batch sizes do not tell what they cost"


def test_a_cost_beyond_the_shortest_runs_is_a_bound() -> None:
    parts = [*ran(4, 0.1, 1.2, 1.2, 512, "1/2 of the samples")]
    records = [
        record
        for size, end in ((4, 1.0), (8, 1.0), (32, 1.5))
        for record in ran(size, 0.1, end, end)
    ]
    found = Branches(tuple(records), {"schedule": "linear"}, parts=tuple(parts), lr=0.1)
    assert _costs(found) == (
        "Samples that the trials needed for the same loss, compared with batch size 4: no more at "
        "8, at least 2 times at 32.",
    )


def test_costs_at_a_constant_rate_are_those_of_the_critical_batch_size_that_is_told() -> None:
    found = branches(1.05, 1.3)
    critical = float(found.critical_batch_size)
    factors = [(1 + size / critical) / (1 + 8 / critical) for size in (32, 128)]
    assert list(known_costs(found).values()) == pytest.approx([1.0, *factors])
    (said,) = _costs(found)
    assert said == (
        f"By this, samples for the same loss, compared with batch size 8: {factors[0]:.2g} times "
        f"at 32, {factors[1]:.2g} times at 128."
    )


def test_where_the_critical_batch_size_is_only_bounded_costs_are_what_was_seen() -> None:
    found = branches(1.05, 1.06)
    assert not found.critical_batch_size.is_resolved
    shares = found.shares()
    assert known_costs(found) == pytest.approx({size: 1 / shares[size] for size in (8, 32, 128)})
    assert _costs(found)[0].startswith("Samples that the trials needed for the same loss")


def test_whole_runs_are_compared_by_the_loss_of_a_constant_rate() -> None:
    """At averaged weights 32 ends 30 % higher, in the last quarter 5 %."""
    records = [*ran(8, 0.1, 1.0, 1.0), *ran(32, 0.2, 1.05, 1.3), *ran(128, 0.2, 2.0, 2.0)]
    parts = [*ran(8, 0.1, 1.4, 1.4, 512, "1/2"), *ran(8, 0.1, 1.9, 1.9, 256, "1/4")]
    found = Branches(tuple(records), {}, parts=tuple(parts))
    sizes = []
    for whole in (False, True):
        choice = chosen(found, 2.0, whole)
        assert choice is not None
        sizes.append(choice.batch_size)
    assert sizes == [8, 32]


def test_a_batch_size_is_judged_at_a_rate_of_which_twice_held() -> None:
    """The best one of 32 is such a rate or not: at half of it the loss is 30 % higher."""
    small = [*ran(8, 0.1, 1.0, 1.0), *ran(8, 0.2, 1.1, 1.1)]
    rates = [*ran(32, 0.2, 1.3, 1.3), *ran(32, 0.4, 1.0, 1.0)]
    parts = [*ran(8, 0.1, 2.0, 2.0, 512, "1/2")]
    sizes = []
    for end in (1.2, math.inf):
        records = (*small, *rates, *ran(32, 0.8, end, end))
        choice = chosen(Branches(records, {}, parts=tuple(parts)), 0.25)
        assert choice is not None
        sizes.append(choice.batch_size)
    assert sizes == [32, 8]


@pytest.mark.parametrize(("unstable", "lr"), [(math.inf, 0.4), (0.9, 0.4), (0.8, 0.2), (0.3, 0.1)])
def test_twice_the_advised_rate_has_not_diverged_before(unstable: float, lr: float) -> None:
    choice = Choice.of(LADDER, 2.0, unstable=unstable)
    assert choice is not None
    assert choice.averaged == lr


@pytest.mark.parametrize("trace_cov", [None, 20.0, 250.0])
def test_the_report_says_whether_both_ways_to_the_critical_batch_size_agree(
    trace_cov: float | None,
) -> None:
    found = made_branches(trace_cov=trace_cov)
    said = write_reasons(trial(LADDER, 0.1, 0.1, 0.4), found, [])
    assert ("two ways do not agree, or there is one only" in " ".join(said)) is not found.agrees
    assert found.agrees is (trace_cov == 20.0)


def test_with_a_schedule_the_sentences_name_it_and_the_loss_at_the_end() -> None:
    found = replace(branches(1.1, 1.3), settings={"schedule": "cosine"})
    said = write_reasons(trial(LADDER, 0.1, 0.1, 0.4, True), found, [])
    assert said[0].startswith("Batch size 8, learning rate 0.100, changed by the schedule (cosine)")
    assert said[0].endswith("to 1.50 (at the end).")
    text = " ".join(said)
    assert (
        "Critical batch size of runs of 1024 samples with this schedule, as the trials had" in text
    )
    assert "Samples that the trials needed for the same loss, compared with batch size 8" in text
    for words in ("two ways", "mean weights", "stays constant"):
        assert words not in text


@pytest.mark.parametrize(
    ("start", "mean", "rises"),
    [(1.0, 1.42, True), (1.0, 1.41, False), (1.0, None, False), (-1.0, -0.58, True),
     (-1.0, -0.59, False)],
)  # fmt: skip
def test_a_rate_whose_losses_rose_is_not_chosen_however_low_its_end_is(
    start: float, mean: float | None, rises: bool
) -> None:
    """A rate that falls to zero hides what it did before. Twice of a rate may rise."""
    assert rose(replace(LADDER[0], start_loss=start, mean_batch_loss=mean)) is rises
    records = [
        record for lr, end in ((0.1, 1.0), (0.2, 0.9), (0.4, 0.8), (0.8, 0.7))
        for record in ran(8, lr, end, end)
    ]  # fmt: skip
    records[5] = replace(records[5], start_loss=start, mean_batch_loss=mean)  # one seed of 0.4
    found = Choice.of(records)
    assert found is not None
    assert (found.averaged, found.stable) == (0.2 if rises else 0.8, 0.8)
    found = Choice.of(records, MARGIN)
    assert found is not None
    assert found.averaged == (0.2 if rises else 0.4)
    (doubt,) = lower_elsewhere(trial(records, 0.2, 0.2, 0.8), 0.05)
    assert doubt.endswith("its losses were above the start on the way") is rises


@pytest.mark.parametrize(("at_32", "critical", "lower"), [(1.5, 9.41, True), (1.4, 16.0, False)])
def test_a_smaller_batch_size_that_is_likely_to_end_lower_is_a_doubt(
    at_32: float, critical: float, lower: bool
) -> None:
    """D = 0.577, and 8 needs 1.53 or 1.33 times the samples of 2: D·ln 1.53 = 0.24, D·ln 1.33 =
    0.17."""
    records = [*ran(8, 0.1, 1.0, 1.0), *ran(32, 0.2, at_32, at_32), *ran(128, 0.2, 1.7, 1.7)]
    parts = [*ran(8, 0.1, 1.4, 1.4, 512, "1/2"), *ran(8, 0.1, 1.8, 1.8, 256, "1/4")]
    found = Branches(tuple(records), {"schedule": "linear"}, parts=tuple(parts))
    assert float(found.critical_batch_size) == pytest.approx(critical, rel=1e-3)
    assert likely_lower(found, 2) is lower
    last = trial([*ran(8, 0.1, 1.1, 1.1), *ran(8, 0.2, 1.5, 1.5)], 0.1, 0.1, 0.4)
    doubt = "a smaller batch size is likely to end at a lower loss, and was not tried"
    assert (doubt in why_rough(last, found)) is lower
    larger = replace(last, choice=replace(last.choice, batch_size=32))
    assert doubt not in why_rough(larger, found)


def steep(critical: float, smallest: float, sizes: tuple[int, ...] = (8, 32, 128)) -> Branches:
    """Losses that fall by 2 for every e-fold of the samples; the smallest batch size ends there."""

    def loss(size: int, share: float = 1.0) -> float:
        return smallest - 2 * math.log(share * (1 + sizes[0] / critical) / (1 + size / critical))

    records = [r for size in sizes for r in ran(size, 0.1, loss(size), loss(size))]
    records = [replace(record, start_loss=30.0) for record in records]
    ends = {share: loss(sizes[0], 1 / share) for share in (2, 4, 8)}
    parts = [r for share, end in ends.items()
             for r in ran(sizes[0], 0.1, end, end, 1024 // share, f"1/{share}")]  # fmt: skip
    return Branches(tuple(records), {"schedule": "linear"}, parts=tuple(parts))


def test_where_only_a_bound_of_the_critical_batch_size_is_known_it_is_used() -> None:
    found = steep(0.5, 1.0)
    assert math.isnan(float(found.critical_batch_size))
    assert likely_lower(found, 2)


def test_a_negative_loss_is_likely_lower_by_its_size() -> None:
    """From -9 it falls by 0.01."""
    assert not likely_lower(steep(1e3, -9.0), 2)


@pytest.mark.parametrize(("sizes", "size"), [((8, 16, 64), 16), ((2, 8, 32), 2)])
def test_it_is_no_doubt_where_a_smaller_batch_size_was_tried_or_is_a_single_sample(
    sizes: tuple[int, ...], size: int
) -> None:
    found = steep(2.0, 1.0, sizes)
    assert likely_lower(found, 1)
    last = LastTrial(Choice(size, 0.1, 0.1, 0.4, False), ran(size, 0.1, 1.1, 1.1), False)
    assert not any("smaller batch" in doubt for doubt in why_rough(last, found))


def test_a_smallest_batch_size_where_nothing_held_does_not_count() -> None:
    found = steep(10.0, 1.0)
    lost = replace(found, records=(*ran(2, 0.1, math.inf, math.inf), *found.records))
    assert likely_lower(lost, 2) == likely_lower(found, 2) is True


def test_a_smaller_rate_that_was_better_by_its_own_loss_is_called_smaller() -> None:
    """0.2 is above the best constant rate and below that at averaged weights."""
    records = [*ran(8, 0.1, 1.0, 1.0), *ran(8, 0.2, 0.8, 0.8), *ran(8, 0.4, 0.9, 0.7)]
    (doubt,) = lower_elsewhere(trial(records, 0.1, 0.4, 0.4, True), 0.05)
    assert "short trials" not in doubt


def test_whether_the_loss_fell_is_that_at_the_rate_that_is_named() -> None:
    records = [*ran(8, 0.1, 1.5, 1.5), *ran(8, 0.4, 9.0, 1.1)]
    found = why_rough(trial(records, 0.1, 0.4, 0.8, True), branches(1.1, 1.3))
    assert "the loss did not fall in the trial" not in found


@pytest.mark.parametrize(("last", "doubt"), [(0.94, True), (0.96, False), (math.inf, False)])
def test_a_loss_that_still_falls_at_the_largest_rate_is_a_doubt(last: float, doubt: bool) -> None:
    """Below it the loss is 1.0, and the tolerance 5 %."""
    records = [*ran(8, 0.1, 0.9, 0.9), *ran(32, 0.1, 1.2, 1.2), *ran(32, 0.2, 1.0, 1.0),
               *ran(32, 0.4, last, last)]  # fmt: skip
    found = Branches(tuple(records), {})
    assert unfinished(found) == ([32] if doubt else [])
    said = " ".join(why_rough(trial(ran(8, 0.1, 1.1, 1.1), 0.1, 0.1, 0.4), found))
    assert ("still fell at the largest learning rate that was tried at batch size 32," in said) is (
        doubt
    )


def test_a_rate_with_a_run_that_diverged_below_the_best_one_is_passed_over() -> None:
    """Between 0.1 and 0.4, where the loss still fell, 0.2 was given up."""
    lost = [replace(r, averaged_loss=None, late_loss=None)
            for r in ran(8, 0.2, math.inf, math.inf)]  # fmt: skip
    records = [*ran(8, 0.1, 1.0, 1.0), *lost, *ran(8, 0.4, 0.9, 0.9)]
    assert unfinished(Branches(tuple(records), {})) == [8]


def test_a_cost_by_the_critical_batch_size_is_no_bound() -> None:
    """It was tried with half of the samples at least; 128 needs four times as many."""
    parts = ran(8, 0.1, 1.2, 1.2, 512, "1/2")
    found = replace(branches(1.19, 1.25), parts=tuple(parts))
    costs = known_costs(found)
    assert found.critical_batch_size.is_resolved
    assert costs[128] > 1 / found.smallest_share
    assert "at least" not in _costs(found)[0]


@pytest.mark.parametrize(("start", "lower"), [(12.0, True), (20.0, False)])
def test_a_loss_that_is_mostly_entropy_is_compared_with_the_gain(start: float, lower: bool) -> None:
    """10 at the end: 0.5 less is little of it, and much of a gain of 2."""
    found = steep(10.0, 10.0)
    found = replace(found, records=tuple(replace(r, start_loss=start) for r in found.records))
    factor = math.log1p(8 / float(found.critical_batch_size))
    factor -= math.log1p(2 / float(found.critical_batch_size))
    assert 0.2 * 2 < found.fall * factor < 0.2 * 10
    assert likely_lower(found, 2) is lower


def test_the_mean_of_a_loss_is_of_the_runs_that_held() -> None:
    """One seed of 0.1 was given up: unfinished are losses that fell from the other one's."""
    first = ran(8, 0.1, 1.0, 1.0)
    first[1] = replace(first[1], diverged=True, averaged_loss=None, late_loss=None)
    records = [*first, *ran(8, 0.2, 0.9, 0.9)]
    assert unfinished(Branches(tuple(records), {})) == [8]
