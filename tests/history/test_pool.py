"""What the file of a run says about its batch size: `gn.pool` of a path."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest

import gradnoise as gn
from gradnoise.history.critical import CriticalBatch
from gradnoise.history.pool import RunPool
from gradnoise.history.run_file import Run
from tests.run_files import DIGITS, line, run_of, written


def grown(count: int = 200, batch_size: float = 10.0) -> RunPool:
    """L = 5 - ln t; trΣ grows with t; λ = 4 at every tenth line: B_crit = t/20."""
    lines = []
    for step in range(1, count + 1):
        values = {
            "step": float(step), "loss": 5 - math.log(step), "trace_cov_now": step / 10,
            "grad_sq_norm_now": 1.0, "batch_size_now": batch_size,
        }  # fmt: skip
        lines.append(
            {**values, "sharpness": 4.0, "momentum": 0.0, "metric_factor": 1.0}
            if step % 10 == 1
            else values
        )
    return RunPool(run_of(*lines))


def test_it_is_what_the_monitor_had_at_the_last_step() -> None:
    pool, known = grown(), CriticalBatch()
    for step in range(1, 201):
        known.add(step, 5 - math.log(step), step / 10, 1.0)
    known.add_sharpness(1, 4.0)
    assert float(pool.critical_batch_size()) == pytest.approx(float(known.result()))
    # Σ t·t/Σ t = 2/3 of the last trΣ
    assert float(pool.critical_batch_size()) == pytest.approx(2 / 4 * 20 * 2 / 3, rel=0.01)
    assert float(pool.critical_batch_size(200)) == pytest.approx(2 * float(known.result()))


def test_b_simple_is_a_ratio_of_sums() -> None:
    assert float(grown().simple_noise_scale) == pytest.approx(np.arange(1, 201).sum() / 10 / 200)


def test_the_rest_is_judged_by_what_was_known_then() -> None:
    pool = grown()
    assert [own.step for own in pool.rest] == list(range(20, 151))
    first = pool.rest[30]
    until = dataclasses.replace(
        pool.run,
        columns={name: values[: first.step] for name, values in pool.run.columns.items()},
        sources=pool.run.sources[: first.step],
    )
    known, own = RunPool(until).critical_batch_size(200 - first.step), first.critical_batch_size
    assert (own.value, own.low, own.high) == (known.value, known.low, known.high)
    assert [own.step for own in pool.some_of_the_rest] == [20, 63, 107, 150]


@pytest.mark.parametrize("batch_size", [3.0, 5.0, 0.5, 1000.0])
def test_a_larger_batch_pays_from_where_the_rest_is_above_it(batch_size: float) -> None:
    pool = grown(batch_size=batch_size)
    above = [own.step for own in pool.rest if float(own.critical_batch_size) > batch_size]
    if batch_size == 1000:
        assert math.isnan(pool.larger_from)
    else:
        assert pool.larger_from == above[0]
        assert above == list(range(above[0], 151))
        assert (above[0] == 20) == (batch_size == 0.5)


def test_a_loss_that_does_not_fall_speaks_for_no_batch() -> None:
    for batch_size in (0.4, 1000.0):
        pool = grown(batch_size=batch_size)
        pool.run.columns["loss"][:] = 1.0
        assert math.isnan(float(pool.critical_batch_size()))
        assert [own.critical_batch_size.low > 0.4 for own in pool.rest] == [True] * 131
        assert math.isnan(pool.larger_from)


def test_the_batch_size_of_the_rest_is_that_of_the_rest() -> None:
    pool = grown()
    pool.run.columns["batch_size_now"][100:] = 30.0
    assert pool.rest[-1].batch_size == 30
    assert pool.rest[0].batch_size == pytest.approx((81 * 10 + 100 * 30) / 181)
    assert pool.batch_size == 20
    del pool.run.columns["batch_size_now"], pool.run.columns["batch_size"]
    assert math.isnan(pool.batch_size)


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        (("loss",), "needs `gradnoise/loss` in the file: set `step.loss` in the training loop"),
        (("sharpness",), "needs `gradnoise/sharpness` in the file: give `loss_fn`, `data` and the"),
        (("metric_factor",), r"needs an optimizer whose limit is known \(gn.stable_lr\): λ alone"),
    ],
)
def test_what_is_missing_is_said(columns: tuple[str, ...], said: str) -> None:
    pool = grown()
    for name in columns:
        del pool.run.columns[name]
    for attempt in (lambda: pool.critical_batch_size(), lambda: pool.rest):
        with pytest.raises(gn.NotMeasuredError, match=said):
            attempt()
    assert pool.unknown in str(pool)
    assert "B_crit =" not in str(pool)


def test_losses_that_were_not_known_at_first_are_left_out() -> None:
    pool = grown()
    pool.run.columns["loss"][:150] = np.nan
    assert pool.rest == ()
    assert float(pool.critical_batch_size()) == pytest.approx(float(grown().critical_batch_size()))


def test_how_far_to_look_ahead_is_positive() -> None:
    with pytest.raises(gn.ArgumentError, match="`ahead` must be a positive"):
        grown().critical_batch_size(0)


def test_a_path_is_a_run() -> None:
    found = gn.pool(DIGITS)
    assert isinstance(found, gn.RunPool)
    assert float(gn.pool(str(DIGITS), level=0.8).critical_batch_size()) == float(
        found.critical_batch_size()
    )
    assert gn.pool(DIGITS, level=0.8).simple_noise_scale.level == 0.8
    text = str(found)
    assert text.startswith("100 measured steps of a run; confidence: rough\n")
    assert "B_crit = ε_max·trΣ/D         73.6 samples  31.9 to 1 450" in text
    assert "of the rest from step 2 961   283 samples  113 to 1 120" in text
    assert max(map(len, text.splitlines())) <= 80
    assert found.sharpness == (0.8869, 5.641)
    assert found.larger_from == 2881


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(gn.ArgumentError, match="has no measured step yet"):
        gn.pool(written(tmp_path / "a.jsonl", "", end=""))
    with pytest.raises(gn.ArgumentError, match="leave `steps` out"):
        gn.pool(DIGITS, steps=[1])  # type: ignore[call-overload]
    with pytest.raises(FileNotFoundError):
        gn.pool(tmp_path / "b.jsonl")
    with pytest.raises(gn.DataError, match="is no file of a gn"):
        gn.pool(written(tmp_path / "c.jsonl", "{}", "{}"))


def test_a_single_line_says_nothing(tmp_path: Path) -> None:
    metric = {"sharpness": 1.0, "momentum": 0.0, "metric_factor": 1.0}
    one = line(1, trace_cov_now=1.0, grad_sq_norm_now=1.0, loss=1.0, **metric)
    pool = gn.pool(written(tmp_path / "a.jsonl", one))
    assert pool.confidence == "none"
    assert pool.critical_batch_size().status is gn.Status.NO_INTERVAL
    assert math.isnan(pool.larger_from)
    assert "interval not measured" in str(pool)


def test_lines_of_an_older_file_have_no_such_numbers() -> None:
    pool = RunPool(Run({"step": np.array([1.0, 2.0])}, ("samples",) * 2))
    assert pool.simple_noise_scale.status is gn.Status.NO_INTERVAL
    assert all(map(math.isnan, pool.sharpness))
    assert pool.unknown


def test_of_normalisation_layers_alone_there_is_no_critical_batch_size() -> None:
    pool = grown()
    own = RunPool(Run(pool.run.columns, ("norm_layers",) * len(pool.run)))
    with pytest.raises(gn.NotMeasuredError, match="the noise of the whole model"):
        own.critical_batch_size()


def test_a_file_of_notes_alone_says_them(tmp_path: Path) -> None:
    note = json.dumps({"step": 1, "note": "no single samples"})
    with pytest.raises(gn.ArgumentError, match=r"has no measured step yet\. no single"):
        gn.pool(written(tmp_path / "a.jsonl", note))
