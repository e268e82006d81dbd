"""Seconds, peak memory in processes of their own, and tables."""

from __future__ import annotations

import argparse
import ctypes
import json
import math
import random
import re
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch.utils import benchmark

Run = Callable[[], Any]


def common_options(text: str | None, models: Iterable[str]) -> argparse.ArgumentParser:
    """Of benchmarks that run models in processes of their own."""
    parser = argparse.ArgumentParser(
        description=text, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", choices=models, default=list(models))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--markdown", action="store_true", help="tables for GitHub")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    return parser


SLOW, FEW_ROUNDS = 2.0, 3  # methods of more seconds per call run in so many rounds
ROUND = 0.1  # seconds that a method runs in one round
FREED = 28 * 2**20  # bytes: glibc gives larger blocks back to the system than it has seen freed


def seconds(run: Run) -> float:
    start = benchmark.timer()
    run()
    return benchmark.timer() - start


def typical(run: Run) -> float:
    """Median seconds of a call over a tenth of a second, of one call at least."""
    calls = [seconds(run)]  # the first one after what others left in the caches
    while sum(calls) < ROUND:
        calls.append(seconds(run))
    return statistics.median(calls)


def interleaved(runs: dict[str, Run], rounds: int) -> dict[str, list[float]]:
    """Seconds by name, one entry per round; slow methods drop out early."""
    torch.empty(FREED, dtype=torch.uint8)  # as in a process that trains; else methods pay for pages
    left = {name: FEW_ROUNDS if seconds(run) > SLOW else rounds for name, run in runs.items()}
    taken: dict[str, list[float]] = {name: [] for name in runs}
    order, shuffle = list(runs), random.Random(0).shuffle
    for index in range(rounds):
        shuffle(order)
        for name in order:
            if index < left[name]:
                taken[name].append(typical(runs[name]))
    return taken


def fresh(command: Sequence[str]) -> dict[str, Any]:
    """What a script prints last, as JSON, in a process of its own."""
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        return {"state": "–", "note": last}
    return json.loads(done.stdout.splitlines()[-1])


def growth(run: Run) -> int:
    """Bytes by which the peak of this process exceeds what it held before a call."""
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)  # what earlier passes freed is not at hand for this one
    before = resident("VmRSS")
    run()
    return resident("VmHWM") - before


def resident(entry: str) -> int:
    """VmRSS or VmHWM, its peak, in bytes."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(re.search(rf"{entry}:\s*(\d+)", status)[1])


def rounded(value: float) -> str:
    """Three digits or all before the point."""
    return (
        f"{value:.{max(0, 2 - math.floor(math.log10(value)))}f}"
        if 0 < value < 1e3
        else f"{value:,.0f}"
    )


def show(title: str, rows: list[list[str]], markdown: bool) -> None:
    """Print a table whose first row is its head."""
    if markdown:
        rules = ["---"] + ["---:"] * (len(rows[0]) - 1)
        lines = ["| " + " | ".join(row) + " |" for row in (rows[0], rules, *rows[1:])]
        print(f"\n{title}\n", *lines, sep="\n")
        return
    grid = Table(title=title)
    for index, head in enumerate(rows[0]):
        grid.add_column(head, justify="right" if index else "left")
    for row in rows[1:]:
        grid.add_row(*row)
    Console(width=110, markup=False, highlight=False).print(grid)


class Notes:
    """Footnotes, each text once."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def mark(self, text: str) -> str:
        if not text:
            return ""
        if text not in self.texts:
            self.texts.append(text)
        return f" [{self.texts.index(text) + 1}]"


def reason(error: Exception) -> str:
    """The first line of what went wrong."""
    first = str(error).strip().split("\n")[0]
    return f"{type(error).__name__}: {first if len(first) <= 220 else first[:217] + '...'}"


def versions(*names: str) -> str:
    """What was measured."""
    return ", ".join(f"{name} {_version(name)}" for name in ("torch", *names))


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"
