"""Units, objective and randomness in words."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import pytest
from torch import nn

import gradnoise as gn
from gradnoise.problem.unit import SAMPLE, Unit
from gradnoise.profiles.units import objective_in_words, randomness_in_words, sum_note, unit_notes
from tests.unit_cases import CE, X, Y, mlp


def test_plain_samples() -> None:
    assert objective_in_words(SAMPLE) == "mean loss of the samples"
    assert randomness_in_words(SAMPLE, None) == "none: the loss draws no random numbers"
    assert unit_notes(SAMPLE) == ()


def test_groups() -> None:
    unit = Unit("group", 16, reason="one sample changes the loss of another: 1 (BatchNorm1d)")
    assert objective_in_words(unit).startswith("mean over random groups of 16 samples")
    (note,) = unit_notes(unit)
    assert "because one sample changes the loss of another: 1 (BatchNorm1d)" in note
    (asked,) = unit_notes(Unit("group", 16, reason="as asked for"))
    assert "groups of 16 samples, as asked for." in asked


def test_draws() -> None:
    unit = Unit(is_replayed=True, reason="1 (Dropout)")
    words = randomness_in_words(unit, 0.256)
    assert words == (
        "the loss draws random numbers (1 (Dropout)): one draw for each sample, the same in every "
        "pass; the draws are about 26% of trΣ"
    )
    assert "distribution" in unit_notes(unit)[0]


ADDED: dict[str, Any] = {
    "module": nn.CrossEntropyLoss(reduction="sum"),
    "function": functools.partial(nn.functional.cross_entropy, reduction="sum"),
    "helper": gn.supervised(nn.CrossEntropyLoss(reduction="sum")),
}


@pytest.mark.parametrize("kind", ADDED)
def test_a_sum_over_the_batch_is_told_from_a_mean(kind: str) -> None:
    """In training its gradient is B times that of the mean, which is what is measured."""
    (note,) = sum_note(ADDED[kind])
    assert "reduction='sum'" in note
    p = gn.profile(mlp(), ADDED[kind], (X, Y), probes=2)
    assert note in p.warnings
    assert float(p.loss) == pytest.approx(float(gn.gradient_moments(mlp(), CE, (X, Y)).loss))


@pytest.mark.parametrize("criterion", [CE, nn.KLDivLoss(reduction="batchmean"), lambda m, b: m(b)])
def test_a_mean_needs_no_word(criterion: Any) -> None:
    assert sum_note(criterion) == ()


def test_a_profile_keeps_them_in_its_file(tmp_path: Path) -> None:
    p = gn.profile(mlp(nn.BatchNorm1d(5), nn.Dropout(0.2)), CE, (X, Y), group_size=12)
    p.save(tmp_path / "p.json")
    again = gn.Profile.load(tmp_path / "p.json")
    assert (again.unit, again.group_size) == ("group", 12)
    assert (again.objective, again.randomness) == (p.objective, p.randomness)
    assert str(again) == str(p)


def test_a_profile_of_a_file_that_knew_no_units(tmp_path: Path) -> None:
    p = gn.profile(mlp(), CE, (X, Y))
    contents = {k: v for k, v in p.to_dict().items() if k not in ("unit", "group_size")}
    for name in ("objective", "randomness"):
        del contents[name]
    (tmp_path / "old.json").write_text(json.dumps(contents))
    old = gn.Profile.load(tmp_path / "old.json")
    assert (old.unit, old.group_size, old.randomness) == ("sample", 1, p.randomness)


def test_the_report_says_what_a_group_is() -> None:
    text = gn.profile(mlp(nn.BatchNorm1d(5)), CE, (X, Y), group_size=12).report(full=True)
    flat = " ".join(text.split())
    assert "measured on 96 samples out of 96 in groups of 12, gradients of groups by 'loop'" in flat
    assert "12 times the variance of group gradients" in flat
    assert "no sampling error" not in flat


def test_the_spread_of_curvature_is_in_samples_as_well() -> None:
    """Along the sharpest direction it is B_curv λ², from which the mean-square limit follows."""
    p = gn.profile(mlp(nn.BatchNorm1d(5)), CE, (X, Y), group_size=12, tol=1e-8)
    spread = p.curvature_spread
    assert spread is not None
    ratio = spread.covariance[0][0] / spread.mean[0][0] ** 2
    assert ratio == pytest.approx(float(p.curvature_noise_scale), rel=0.3)  # λ² is debiased there
