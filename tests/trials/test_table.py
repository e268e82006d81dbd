"""Branches as text."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

import gradnoise as gn
from tests.starts import branched, ended, made_branches


def row(text: str, size: int) -> str:
    table = text.split("─\n")[1]
    (found,) = (line for line in table.splitlines() if line.startswith(f"{size} "))
    return " ".join(found.split())


def test_every_batch_size_has_its_best_rates_losses_and_cost() -> None:
    text = str(made_branches())
    assert "16 runs from a loss of 1.00, with learning rate 0.100 at batch size 4; 1 dive" in text
    assert (
        "64 samples each (whole steps at the largest batch size); 864 in all runs together" in text
    )
    expected = "4 16 0.1–0.4 0.100* 0.310 ± 0.01 0.200 0.190 ± 0.01 1.00× ≥ 0.2"
    assert row(text, 4) == expected
    assert row(text, 16).endswith("0.310 ± 0.01 2.00× ≥ 0.4")
    assert "≥ 4.00×" in row(text, 64)
    assert "critical batch size of runs of 64 samples: " in text
    assert "largest batch size within 10 % of the lowest averaged loss: 4.98 [" in text
    assert "* the smallest or largest rate that was tried there" in text


def test_lines_are_short() -> None:
    assert max(map(len, str(made_branches()).splitlines())) <= 100


def test_a_row_of_long_numbers_is_one_line() -> None:
    cells = {0.000177: (0.1390, 0.1408), 0.00283: (0.2, 0.2), 0.00566: (0.2, 0.2)}
    small = [r for lr, losses in cells.items() for r in ended(8, lr, losses, samples=8192)]
    large = ended(512, 0.00283, (0.2790, 0.2808), samples=8192)
    parts = ended(8, 0.00283, (0.25, 0.25), budget="1/8", samples=1024)
    text = str(gn.Branches((*small, *large), {}, parts=tuple(parts)))
    best = "1.77e-04* 0.140 ± 0.0009"
    assert row(text, 8) == f"8 1 024 0.00018–0.0057 {best} {best} 1.00× ≥ 0.0057"
    assert row(text, 512).endswith("≥ 8.00× ≥ 0.0028")


def test_a_batch_size_without_a_stable_rate_has_none() -> None:
    records = (*ended(4, 0.1, (0.5, 0.5)), *ended(16, 0.1, (math.inf, math.inf)))
    assert row(str(gn.Branches(records, {})), 16) == "16 4 0.1 – – – – – < 0.1"


def test_where_runs_begin_to_diverge_is_between_two_rates() -> None:
    records = (*ended(4, 0.1, (0.5, 0.5)), *ended(4, 0.2, (math.inf, 0.5)))
    records += tuple(ended(4, 0.4, (math.inf, math.inf)))
    assert row(str(gn.Branches(records, {})), 4).endswith(" 0.1–0.4")


def test_where_one_seed_diverged_at_every_rate_and_another_at_none_nothing_is_known() -> None:
    records = tuple(ended(4, 0.1, (math.inf, 0.5)))
    assert row(str(gn.Branches(records, {})), 4).endswith(" –")


@pytest.mark.parametrize("width", ["70", "80", "100"])
def test_no_rate_is_broken_in_two(width: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", width)
    cells = {0.00035: (2.48, 2.52), 0.00566: (2.4, 2.5), 0.0227: (math.inf, math.inf)}
    records = [r for lr, losses in cells.items() for r in ended(8, lr, losses, samples=20480)]
    text = str(gn.Branches(tuple(records), {}))
    assert all(shown in text for shown in ("0.00035–0.023", "0.0057–0.023", "0.00566"))


def test_where_nothing_is_trained_no_rate_is_best() -> None:
    records = [r for lr in (0.1, 0.2) for r in ended(4, lr, (0.5, 0.5))]
    assert row(str(gn.Branches(tuple(records), {})), 4) == "4 16 0.1–0.2 – – – – – ≥ 0.2"


def test_where_everything_diverged_it_is_said() -> None:
    text = str(gn.Branches(tuple(ended(4, 0.1, (math.inf, math.inf))), {}))
    assert "every run of these branches diverged: give smaller `factors`" in text


def test_without_runs_it_says_so() -> None:
    assert str(gn.Branches((), {})) == "no runs"


@pytest.mark.parametrize(("vectorise", "how"), [(True, "trained 6 at once"), (False, "one by one")])
def test_how_the_runs_were_trained_is_said(vectorise: bool, how: str) -> None:
    assert how in str(branched(vectorise=vectorise))


def test_one_batch_size_does_not_tell_the_critical_one() -> None:
    text = " ".join(str(gn.Branches(tuple(ended(4, 0.1, (0.5, 0.4))), {})).split())
    assert "critical batch size of runs of 64 samples: unknown" in text
    assert "one batch size does not tell it" in text
    assert "two ways" not in text


def test_with_a_schedule_there_is_one_loss() -> None:
    text = str(replace(made_branches(), settings={"schedule": "linear"}))
    assert "learning rate 0.100 at batch size 4 (schedule: linear); 1 diverged" in text
    assert row(text, 4) == "4 16 0.1–0.4 0.200 0.190 ± 0.01 1.00× ≥ 0.2"
    said = " ".join(text.split())
    assert "needed for the same loss at the end. stable to" in said
    assert "within 10 % of the lowest loss at the end: " in said
    for word in ("late", "averaged", "two ways"):
        assert word not in said
