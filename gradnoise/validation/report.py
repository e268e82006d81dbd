"""All checks of `gradnoise validate`, and their table."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator

from ..show.progress import StartTask
from ..show.table import plain_table, render
from ..statistics.estimate import short
from . import algebra, arrays, noise, training
from .check import Check

GROUPS: dict[str, Callable[[int], Iterator[Check]]] = {
    "profiles": noise.profiles,
    "whole population": noise.whole_population,
    "single quantities": noise.single,
    "gradients": arrays.gradients,
    "norms": arrays.norms,
    "tails": arrays.tails,
    "algebra": algebra.products,
    "limits": training.limits,
    "rules": training.rules,
    "laws": training.laws,
}


def validate(seed: int = 0, start: StartTask | None = None) -> list[Check]:
    """Every estimator on every analytic problem with a known answer.

    The intervals have level 1 - 10⁻⁵: in about one of a thousand runs one of the hundred misses the
    truth by chance.

    Args:
        seed: of samples and probes.
        start: begins a task of a progress bar, as `progress_bar` gives it.
    """
    done = start("validation", len(GROUPS)) if start else lambda _: None
    checks: list[Check] = []
    for group in GROUPS.values():
        checks += group(seed)
        done(1)
    return checks


def table(checks: list[Check], started: float) -> str:
    """Exact and measured value, z-score and verdict of every check, and how many failed.

    Args:
        checks: what to show.
        started: `time.perf_counter()` before the checks.
    """
    shown = plain_table("problem", "quantity", "truth", "found", "z", "verdict")
    shown.columns[1].justify = "left"
    for check in checks:
        z = "" if math.isnan(check.z) else f"{check.z:+.1f}"
        found = short(check.found) if not math.isnan(check.found) else "bound only"
        verdict = "holds" if check.holds else "FAILS"
        shown.add_row(check.problem, check.quantity, short(check.truth), found, z, verdict)
    failed = sum(not check.holds for check in checks)
    spent = time.perf_counter() - started
    return f"{render([shown])}\n\n{len(checks)} checks, {failed} failed, {spent:.0f} s"
