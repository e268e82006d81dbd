"""What follows from branches whose losses are known."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

import gradnoise as gn
from gradnoise.trials.critical import BY_SHARES, SCHEDULED
from tests.starts import ended, made_branches


def test_losses_are_those_at_the_best_stable_rate_of_each_batch_size() -> None:
    found = made_branches()
    averaged, last = found.losses(), found.losses("late_loss")
    assert {size: values.tolist() for size, values in averaged.items()} == {
        4: [0.18, 0.20], 16: [0.30, 0.32], 64: [0.90, 0.92],
    }  # fmt: skip
    assert last[4].tolist() == [0.30, 0.32]
    assert list(averaged) == [4, 16, 64]


def test_a_rate_with_one_seed_that_diverged_is_not_used() -> None:
    records = (*ended(4, 0.1, (0.5, 0.5)), *ended(4, 0.2, (0.1, math.inf)))
    assert gn.Branches(records, {}).losses()[4].tolist() == [0.5, 0.5]


def test_a_batch_size_costs_one_over_its_share_in_samples() -> None:
    """16 ends where the smallest was after half of the samples, 64 beyond the shortest part."""
    shares = made_branches().shares()
    assert shares == pytest.approx({4: 1.0, 16: 0.5, 64: 0.25})
    assert made_branches().smallest_share == 0.25


def test_all_samples_are_counted_whether_a_run_was_stopped_or_not() -> None:
    (stopped,) = ended(4, 0.4, (math.inf,))
    early = gn.Branches((stopped,), {}, parts=(stopped,))
    assert early.samples == 2 * 64
    assert made_branches().samples == 12 * 64 + 2 * 32 + 2 * 16


def test_the_largest_batch_size_is_within_the_tolerance() -> None:
    """0.19 at 4, and 0.31 at 16: 0.209 is reached at a sixth of the way, in ln B."""
    found = made_branches().largest_batch_size
    assert float(found) == pytest.approx(4 * 4 ** ((0.1 * 0.19) / 0.12))
    assert found.low <= float(found) <= found.high


def test_the_critical_batch_size_has_an_interval_and_two_ways_to_it() -> None:
    """Without trΣ by the samples alone; with it also by the fall of the loss."""
    alone, both = made_branches(), made_branches(trace_cov=2.0, drift=1.0)
    for found in (alone.critical_batch_size, both.critical_batch_size):
        assert found.low < float(found) < found.high
    assert float(alone.critical_batch_size) != float(both.critical_batch_size)
    assert not alone.agrees
    assert made_branches(trace_cov=1e9).agrees is False


def test_the_fall_of_the_loss_takes_the_largest_of_the_best_rates() -> None:
    """Of the largest batch the best rate is small where it makes few steps."""
    last = made_branches(trace_cov=20.0)
    small = [replace(r, run=replace(r.run, lr=r.run.lr / 64)) for r in last.records[-2:]]
    other = replace(last, records=(*last.records[:-2], *small))
    assert {r.run.batch_size for r in small} == {64}
    ratio = math.log(float(last.critical_batch_size) / float(other.critical_batch_size))
    assert ratio == pytest.approx(0.5 * math.log(0.4 / 0.2))


def test_the_fall_of_the_loss_counts_the_drift_of_momentum() -> None:
    still, moving = made_branches(trace_cov=20.0), made_branches(trace_cov=20.0, drift=4.0)
    ratio = float(moving.critical_batch_size) / float(still.critical_batch_size)
    assert ratio == pytest.approx(2.0)  # the root of it


def test_rates_that_all_end_alike_have_no_fall() -> None:
    records = (*ended(4, 0.1, (0.5, 0.5)), *ended(4, 0.2, (0.5, 0.5)))
    assert math.isnan(float(gn.Branches(records, {}, trace_cov=2.0).critical_batch_size))


def test_where_losses_do_not_tell_there_is_no_value() -> None:
    records = (
        *ended(4, 0.1, (0.1, 0.2), (0.5, 0.5)), *ended(16, 0.1, (0.4, 0.5), (0.5, 0.5)),
    )  # fmt: skip
    scale = gn.Branches(records, {}).critical_batch_size
    assert math.isnan(float(scale))
    assert scale.status is gn.Status.BEYOND_GRID


def test_branches_that_all_diverged_have_no_losses() -> None:
    found = gn.Branches(tuple(ended(4, 0.1, (math.inf, math.inf))), {})
    with pytest.raises(gn.ArgumentError, match="every run of these branches diverged: give small"):
        found.losses()
    assert found.largest_stable() == {4: 0.0}


def test_without_runs_there_is_no_start() -> None:
    assert math.isnan(gn.Branches((), {}).start_loss)
    assert made_branches().start_loss == 1.0


def test_the_table_and_the_dict_hold_all_of_it() -> None:
    found = made_branches()
    assert found.rows[0]["averaged_loss"] == 0.20
    kept = json.loads(json.dumps(found.to_dict()))
    assert (kept["lr"], kept["batch_size"], kept["trace_cov"]) == (0.1, 4, None)
    assert len(kept["parts"]) == 4
    assert len(kept["records"]) == 12


def test_with_a_schedule_shares_alone_tell_the_critical_batch_size() -> None:
    """They need no correction for a rate that stays constant."""
    found = made_branches(trace_cov=20.0)
    scheduled = replace(found, settings={"schedule": "linear"})
    alone = made_branches()
    ratio = float(scheduled.critical_batch_size) / float(alone.critical_batch_size)
    assert ratio == pytest.approx(SCHEDULED / BY_SHARES)
    assert not scheduled.agrees


def test_parts_of_other_batch_sizes_do_not_count() -> None:
    """`gn.advise` goes on to a smaller batch size after parts were run."""
    found = made_branches()
    more = ended(16, 0.2, (9.0, 9.0), (9.0, 9.0), "1/2 of the samples", 32)
    assert replace(found, parts=(*found.parts, *more)).shares() == found.shares()
    assert replace(found, parts=(*found.parts, *more)).fall == found.fall
