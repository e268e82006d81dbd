"""All checks, and the table of what they found."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator

from ..show.progress import Stage
from ..show.table import plain_table, render
from ..statistics.estimate import short
from . import algebra, noise, training
from .check import Check

GROUPS: dict[str, Callable[[int], Iterator[Check]]] = {
    "profiles": noise.profiles,
    "whole population": noise.whole_population,
    "arrays": noise.arrays,
    "single quantities": noise.single,
    "tails": noise.tails,
    "algebra": algebra.products,
    "limits": training.limits,
    "rules": training.rules,
    "laws": training.laws,
}


def validate(seed: int = 0, stage: Stage | None = None) -> list[Check]:
    """Every estimator on every analytic problem that determines it.

    Intervals are of the level 1 - 10⁻⁵, so that among all of them one misses by chance in about one
    run of a thousand.

    Args:
        seed: of samples and probes.
        stage: of a progress bar.
    """
    tick = stage("validation", len(GROUPS)) if stage else lambda _: None
    found: list[Check] = []
    for group in GROUPS.values():
        found += group(seed)
        tick(1)
    return found


def table(checks: list[Check], started: float) -> str:
    """Truth, estimate, z-score and verdict of each, and how many failed."""
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
