"""What a profile cost."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

import gradnoise as gn
from gradnoise.problem.work import Work
from gradnoise.profiles import cost as module
from gradnoise.profiles.cost import Cost, Meter
from tests.many import COUNT, opened, regression


def test_it_is_in_passes_over_the_measured_samples() -> None:
    own = opened()
    meter = Meter(own.problem.objective.work)
    own.problem.objective.work.forward += COUNT
    own.problem.objective.work.differentiated(COUNT)
    own.problem.objective.work.multiplied(COUNT, directions=3)
    time.sleep(0.01)
    cost = meter.cost(own.problem, Work(products=COUNT))
    assert cost.passes == pytest.approx(1 + 3 * 2)
    assert cost.products == 3
    assert cost.seconds >= 0.01
    assert cost.half_width == pytest.approx(7 + 3 * 2)  # 4 times as many values


def test_half_the_interval_of_a_part_takes_four_times_the_samples() -> None:
    own = opened(population="distribution")
    meter = Meter(own.problem.objective.work)
    own.problem.objective.work.multiplied(COUNT)
    assert meter.cost(own.problem, Work(products=COUNT)).half_width == pytest.approx(4 * 2)


def test_memory_is_the_growth_of_its_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    own, peaks = opened(), iter([{"cpu": 5, "cuda": 0}, {"cpu": 9, "cuda": 0}])
    monkeypatch.setattr(module, "_peaks", lambda: next(peaks))
    assert Meter().cost(own.problem, None).peak_bytes == 4


def test_a_process_has_a_peak_in_bytes() -> None:
    assert 2**26 < module._peaks()["cpu"] < 2**37  # torch alone takes more than 64 MiB


def test_a_profile_says_what_it_cost(tmp_path: Path) -> None:
    model, criterion, batch = regression()
    p = gn.profile(model, criterion, batch)
    assert p.cost is not None
    assert 10 < p.cost.passes < 80
    assert p.cost.products < p.cost.passes / 2
    assert p.cost.half_width > p.cost.passes
    assert f"{p.cost.passes:.3g} plain passes (forward" in str(p)
    p.save(tmp_path / "p.json")
    assert gn.Profile.load(tmp_path / "p.json").cost == p.cost
    contents = (tmp_path / "p.json").read_text()
    older = contents.replace('"cost"', '"price"')
    (tmp_path / "older.json").write_text(older)
    assert gn.Profile.load(tmp_path / "older.json").cost is None


def test_the_same_seed_costs_the_same_work() -> None:
    model, criterion, batch = regression()
    first, second = (gn.profile(model, criterion, batch, seed=1) for _ in range(2))
    assert first == second
    assert first.cost is not None
    assert second.cost is not None
    assert first.cost.products == second.cost.products


def test_a_second_profile_of_one_measurement_costs_less() -> None:
    m = gn.measure(*regression())
    first, second = m.profile().cost, m.profile().cost
    assert first is not None
    assert second is not None
    assert second.passes < first.passes


def test_half_the_accuracy_costs_about_what_was_said() -> None:
    model, criterion, batch = regression(count=4096)
    p = gn.profile(model, criterion, batch, accuracy=0.08)
    half = (p.noise_scale.high - p.noise_scale.low) / 2 / float(p.noise_scale)
    finer = gn.profile(model, criterion, batch, accuracy=half / 2)
    assert p.cost is not None
    assert finer.cost is not None
    assert finer.cost.passes == pytest.approx(p.cost.half_width, rel=0.5)
    assert (finer.noise_scale.high - finer.noise_scale.low) / 2 < 0.7 * half * float(p.noise_scale)


def test_without_an_interval_of_the_noise_scale_no_half_is_told() -> None:
    p = gn.profile(*regression())
    assert "half the interval" in str(p)
    first = ("loss", "grad_sq_norm", "trace_cov", "simple_noise_scale")
    known = {name: p.estimates[name] for name in first}
    without = str(replace(p, estimates=known))
    assert "plain passes" in without
    assert "half the interval" not in without


def test_what_more_samples_than_there_are_would_take_is_not_told() -> None:
    p = gn.profile(*regression(), population=2 * COUNT)
    assert "plain passes" in str(p)
    assert "half the interval" not in str(p)
    more = gn.profile(*regression(), population=4 * COUNT)
    assert "4 times as many samples" in str(more).replace("\n", " ")


def test_it_reads_as_a_line() -> None:
    cost = Cost(
        640, passes=31.24, seconds=0.654, peak_bytes=3 * 2**20, products=11.2, half_width=50
    )
    assert (
        str(cost)
        == "31.2 plain passes over 640 samples, 11.2 Hessian-vector products, 0.65 s, 3 MiB"
    )
