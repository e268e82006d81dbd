"""The sentences about a run: what they say, and from when on they say it."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

from gradnoise.history import meaning
from gradnoise.history.meaning import about_batch, about_run, noise_scale, over, regime
from gradnoise.history.pool import RunPool
from gradnoise.history.run_file import Run
from gradnoise.history.summary import Part, Summary, summary
from gradnoise.statistics.estimate import Estimate, Status
from tests.run_files import DIGITS, run_of

INF, NAN = math.inf, math.nan


def scale(value: float, low: float, high: float) -> Estimate:
    status = Status.SIGNAL_BELOW_NOISE if math.isnan(value) else Status.RESOLVED
    return Estimate(value, low, high, 0.95, NAN, 9, status)


def ended(
    *scales: Estimate, batch_size: float = 10, lrs: tuple[float, ...] = (1, 1, 1)
) -> tuple[Summary, RunPool]:
    """A summary; B_crit is not known."""
    parts = [
        Part(100 * k + 1, 100 * k + 100, each, batch_size, lr)
        for k, (each, lr) in enumerate(zip(scales, lrs, strict=True))
    ]
    return Summary(parts[0], tuple(parts)), RunPool(run_of({}))


def test_the_noise_scale_is_that_of_the_last_line() -> None:
    found = noise_scale(run_of({}, {"noise_scale": 50.0, "noise_scale_low": 40.0}))
    assert (found.value, found.low, found.high) == (50, 40, 130)
    assert found.is_resolved
    bound = noise_scale(run_of({"noise_scale": NAN, "noise_scale_high": INF}))
    assert bound.status is Status.SIGNAL_BELOW_NOISE
    assert bound.bounds_in_words() == "at least 80.0"
    nothing = dict.fromkeys(("noise_scale", "noise_scale_low", "noise_scale_high"), NAN)
    assert noise_scale(run_of(nothing)).status is Status.NO_INTERVAL


def test_the_ratio_has_the_interval_of_the_noise_scale_turned_round() -> None:
    found = over(10, scale(100, 50, 200))
    assert (found.value, found.low, found.high) == (0.1, 0.05, 0.2)
    assert over(10, scale(NAN, 50, INF)).bounds_in_words() == "at most 0.200"
    assert over(10, scale(NAN, 0, INF)).bounds_in_words() == "unknown"


@pytest.mark.parametrize(
    ("ratio", "found"),
    [
        (scale(0.19, 0.1, 0.9), meaning.NOISE),
        (scale(0.19, 0.1, 1.1), meaning.EQUAL),
        (scale(0.21, 0.1, 0.9), meaning.EQUAL),
        (scale(NAN, 0, 0.19), meaning.NOISE),
        (scale(NAN, 0, 0.21), meaning.UNKNOWN),
        (scale(5.1, 1.1, 9), meaning.GRADIENT),
        (scale(5.1, 0.9, 9), meaning.EQUAL),
        (scale(4.9, 1.1, 9), meaning.EQUAL),
        (scale(NAN, 1.1, INF), meaning.GRADIENT),
        (scale(NAN, 0, INF), meaning.UNKNOWN),
    ],
)
def test_one_dominates_beyond_a_factor_and_its_interval(ratio: Estimate, found: str) -> None:
    assert regime(ratio) == found


@pytest.mark.parametrize(
    ("ratio", "said"),
    [
        (scale(0.1, 0.05, 0.25), "In a batch, 80 to 95 % of the squared gradient is noise"),
        (scale(NAN, 0, 0.25), "In a batch, at least 80 % of the squared gradient is noise"),
        (scale(NAN, 4, INF), "In a batch, at most 20 % of the squared gradient is noise"),
        (scale(1, 1, 1), "In a batch, 50 % of the squared gradient is noise, 1/(1 + B/B_simple)"),
        (scale(NAN, 0, INF), "Too few steps were measured so far to compare noise and gradient."),
        (scale(0.1, 0.05, 0.25), "may save steps where the learning rate can grow with it"),
        (scale(9, 8, 10), "The gradient dominates: a larger batch probably saves few steps."),
        (scale(1, 0.5, 2), "Whether a larger batch saves steps, only a trial (gn.branch) tells."),
    ],
)
def test_a_batch_is_described_by_its_share_of_noise(ratio: Estimate, said: str) -> None:
    assert said in about_batch(ratio)


@pytest.mark.parametrize(
    ("first", "last", "said"),
    [
        (scale(100, 80, 120), scale(400, 300, 600), "grew from the first third to the last, by a "
            "factor of about 4.00."),
        (scale(100, 80, 120), scale(NAN, 240, INF), "by a factor of at least 2.00."),
        (scale(400, 300, 600), scale(100, 80, 120), "fell from the first third to the last, by a "
            "factor of about 4.00."),
        (scale(100, 80, 320), scale(400, 300, 600), "do not differ by more than their intervals."),
        (scale(NAN, 80, INF), scale(400, 300, 600), "do not differ by more than their intervals."),
    ],
)  # fmt: skip
def test_growth_is_told_where_intervals_lie_apart(
    first: Estimate, last: Estimate, said: str
) -> None:
    assert said in about_run(*ended(first, first, last))[0]


NOISY, EVEN = scale(100, 80, 120), scale(20, 15, 30)  # at B = 10


@pytest.mark.parametrize(
    ("thirds", "said"),
    [
        ((NOISY, NOISY, NOISY), "In the whole run noise dominated (B/B_simple below 1/5)"),
        ((EVEN, NOISY, NOISY), "From step 101 on noise dominated"),
        ((NOISY, EVEN, NOISY), "From step 201 on noise dominated"),
        ((NOISY, NOISY, EVEN), "In the last third noise did not dominate (B/B_simple was not"),
        ((NOISY, NOISY, scale(NAN, 30, INF)), "too few steps were measured to tell whether noise"),
    ],
)
def test_a_run_says_since_when_noise_dominated(thirds: tuple[Estimate, ...], said: str) -> None:
    assert said in about_run(*ended(*thirds))[1]


def test_what_it_does_not_say_is_said() -> None:
    plain = about_run(*ended(NOISY, NOISY, NOISY))
    assert plain[-2] == meaning.NOT_CRITICAL
    assert "within a factor 2 of it in 35 %" in plain[-2]
    assert plain[-1].startswith("B_crit needs `gradnoise/loss` in the file")
    assert len(plain) == 4
    decayed = about_run(*ended(NOISY, NOISY, NOISY, lrs=(1.0, 0.5, 0.25)))
    assert "The learning rate fell by a factor 4.00 from the first third" in decayed[2]
    raised = about_run(*ended(NOISY, NOISY, NOISY, lrs=(1.0, 1.0, 1.6)))
    assert "The learning rate rose by a factor 1.60" in raised[2]
    bound = about_run(*ended(scale(NAN, 80, INF), NOISY, NOISY))
    assert "measure more steps (the monitor's `every`)" in bound[2]


def of_digits(batch_size: float = 256, **columns: float) -> list[str]:
    run = Run.load(DIGITS)
    run.columns["batch_size_now"][:] = batch_size
    for name, value in columns.items():
        run.columns[name] = run.column(name) * 0 + value
    found = summary(run)
    assert found is not None
    return about_run(found, RunPool(run))


def test_a_run_whose_b_crit_is_known_says_what_its_batch_size_cost() -> None:
    said = of_digits()
    assert said[1].startswith(
        "B = 256 takes about 4.48 times the fewest samples, 1 + B/B_crit (1.18 to 9.03), and 1.29 "
        "times the fewest steps, 1 + B_crit/B (1.12 to 6.67)"
    )
    assert said[2].startswith(
        "B_crit of the rest was looked at from step 401 to 2 961. From step 2 881 on its value "
        "was above B: if that is right, twice the batch size"
    )
    assert said[-1] == meaning.NOT_RIGHT
    assert not any("noise dominated" in line for line in said)
    assert "At the end of that it was not above B: nothing" in of_digits(1000)[2]
    assert "to 2 961. All along its value was above B: if" in of_digits(8)[2]
    assert of_digits(loss=1.0)[1].startswith("The loss did not fall, so that no critical batch")
    assert len(of_digits(lr=0.0)) == 4  # a rate of zero has no factor
    assert len(said) == 5


def test_the_shares_of_docs_advice_are_quoted() -> None:
    page = Path(__file__).parents[2] / "docs" / "advice.md"
    text = page.read_text(encoding="utf-8")
    assert "| B_simple, pooled | 35% | 71% |" in text
    rows = re.findall(
        r"\| B_crit, 200 measured steps \|[^|]*\| (\d+)% \|.*\| (\d+ of \d+) \|", text
    )
    assert rows[:2] == [("64", "151 of 152"), ("53", "70 of 85")]
    assert all(number in meaning.NOT_RIGHT for row in rows[:2] for number in row)


def test_the_level_is_that_of_the_monitor() -> None:
    assert noise_scale(run_of({"level": 0.8})).level == run_of({"level": 0.8}).level == 0.8
    assert run_of({}).level == 0.95  # of a file that does not say
