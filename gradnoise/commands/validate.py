"""`gradnoise validate`."""

from __future__ import annotations

import argparse
import time

from ..show.progress import progress_bar
from ..validation.report import table, validate
from .arguments import shows_progress

WRONG = 1


def run(options: argparse.Namespace) -> int:
    """Hold every estimator to every analytic problem; the exit code."""
    start = time.perf_counter()
    with progress_bar(shows_progress(options)) as stage:
        checks = validate(options.seed, stage)
    print(table(checks, start))
    return 0 if all(check.holds for check in checks) else WRONG
