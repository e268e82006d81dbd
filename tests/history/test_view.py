"""The view of a run: what a reader of 80 columns sees, and how much of it fits."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
from rich.console import Console, RenderableType

from gradnoise.history.pool import RunPool
from gradnoise.history.run_file import Run
from gradnoise.history.summary import summary
from gradnoise.history.view import nothing_yet, view, whole_run
from tests.run_files import DIGITS, run_of

PAGE = Path(__file__).parents[2] / "docs" / "watch.md"
INF, NAN = math.inf, math.nan


def console(width: int = 80) -> Console:
    return Console(width=width, height=24, color_system=None, emoji=False, markup=False)


def lines(shown: RenderableType, width: int = 80) -> list[str]:
    own = console(width)
    with own.capture() as captured:
        own.print(shown)
    return [line.rstrip() for line in captured.get().splitlines()]


def seen(run: Run, rows: int | None = None, now: float = 1003.0) -> list[str]:
    return lines(view(run, Path("run.jsonl"), console(), now, rows))


def test_the_page_shows_what_the_example_gives() -> None:
    run = Run.load(DIGITS)
    found = summary(run)
    assert found is not None
    shown = seen(run, now=run.last("time") + 3) + [""] + lines(whole_run(found, RunPool(run)))
    blocks = re.findall(r"```text\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
    assert "\n".join(shown).strip() == "\n".join(blocks).strip()


def test_no_line_is_longer_than_the_terminal() -> None:
    run = Run.load(DIGITS)
    for width in (60, 80, 200):
        group = view(run, Path("a_name_that_is_long" * 5), console(width), 1e10)
        assert max(map(len, lines(group, width))) <= min(width, 80)


@pytest.mark.parametrize("rows", range(7, 60, 3))
def test_it_fits_into_the_lines_that_there_are(rows: int) -> None:
    found = seen(Run.load(DIGITS), rows)
    assert len(found) <= max(rows, 13)
    assert any("░" in line for line in found[3:]) == (rows >= 19)


def test_the_numbers_of_the_last_line_are_shown_with_their_formulas() -> None:
    first = {"loss": 9.0, "lr": 0.5, "sharpness": 3.0, "stable_lr": 1.0}
    critical = {f"critical_batch_size{end}": x for end, x in (("", 5), ("_low", 2), ("_high", 9))}
    shown = "\n".join(seen(run_of(first, {"loss": 2.5, "lr": 0.25, **critical})))
    assert "run.jsonl   step 1 " in shown
    assert "written 3 s ago" in shown
    assert "loss 2.50 · learning rate ε 0.250" in shown
    assert re.search(r"B_simple +100  80.0 to 130; trΣ/\|G\|², in samples", shown)
    assert re.search(r"B/B_simple +0.100  0.0769 to 0.125; batch size B = 10", shown)
    assert re.search(r"ε·λ/2 +0.750  beyond 1 gradient descent is unstable \(step 0\)", shown)
    assert re.search(r"ε/stable +0.500  beyond 1 this optimizer is, gn.stable_lr \(step 0\)", shown)
    assert re.search(r"B_crit +5.00  2.00 to 9.00; ε_max·trΣ/D, to here, in samples", shown)
    flat = {**critical, "critical_batch_size": NAN}
    assert re.search(r"B_crit +≥ 2.00  the loss did not fall;", "\n".join(seen(run_of(flat))))
    assert "B_crit" not in "\n".join(seen(run_of(critical, {})))  # of another line
    plain = "\n".join(seen(run_of({**first, "stable_lr": 2 / 3})))
    assert "ε·λ/2" in plain
    assert "ε/stable" not in plain
    assert "ε·λ/2" not in "\n".join(seen(run_of({"lr": 0.5, "sharpness": 3.0})))  # of Lion


def test_what_was_not_measured_is_not_there() -> None:
    shown = "\n".join(seen(run_of({"time": NAN}, {"time": NAN})))
    for text in ("loss", "learning rate ε", "ε·λ/2", "ε/stable", "ago", "skipped", "went back"):
        assert text not in shown


def test_bounds_and_nothing_are_said() -> None:
    bound = {"noise_scale": NAN, "noise_scale_high": INF}
    shown = "\n".join(seen(run_of(bound)))
    assert re.search(r"B_simple +≥ 80.0  only a bound so far", shown)
    assert re.search(r"B/B_simple +≤ 0.125  only a bound so far", shown)
    shown = "\n".join(seen(run_of({**bound, "noise_scale_low": 0.0})))
    assert re.search(r"B_simple +unknown  too few steps so far", shown)


def test_a_proxy_is_named_and_losses_of_lines_are_counted() -> None:
    run = run_of({"skipped": 2.0}, source="norm_layers")
    shown = "\n".join(seen(Run(run.columns, run.sources, ("why",), unreadable=3, restarts=4)))
    assert "Not measured, or doubtful: why" in shown
    assert "trΣ/|G|² of normalisation layers alone" in " ".join(shown.split())
    assert "1 steps measured (source: norm_layers) · 2 skipped" in shown
    assert "Lines that could not be read: 3" in shown
    assert "Steps went back: 4 times (resumed, or two runs in one file; later" in shown


@pytest.mark.parametrize(
    ("age", "said"), [(-9, "0 s"), (119, "119 s"), (7100, "118 min"), (7200, "2 h"), (9e5, "10 d")]
)
def test_the_age_of_the_last_line_is_said(age: float, said: str) -> None:
    assert f"written {said}" in seen(run_of({}), now=1000.0 + age)[0]


def test_a_section_is_about_the_whole_run() -> None:
    pairs = [(4.0, 2.0), (4.5, 2.1), (4.0, 2.0), (4.2, 2.2), (4.0, 2.0), (4.0, -2.0)]
    run = run_of(*({"trace_cov_now": a, "grad_sq_norm_now": b, "lr": 0.1} for a, b in pairs))
    found = summary(run)
    assert found is not None
    shown = lines(whole_run(found, RunPool(run)))
    assert shown[0] == (
        "Over the whole run: B_simple = Σ trΣ/Σ|G|² of its measured steps, in samples"
    )
    rows = [re.split(r"  +", line) for line in shown]
    assert ["steps", "B_simple", "interval", "B", "B/B_simple", "learning rate ε"] in rows
    assert [row[0] for row in rows[3:7]] == ["all", "0 to 1", "2 to 3", "4 to 5"]
    assert rows[5][1] == "1.95"
    assert rows[5][-1] == "0.100"
    assert "only a bound" in shown[6]


def test_a_file_without_a_measured_step_says_why() -> None:
    assert nothing_yet(Run({}, (), ("why",)), "run.jsonl") == "run.jsonl: no measured step yet\nwhy"
