"""Seconds, peak memory in processes of their own, and tables."""

from __future__ import annotations

import ctypes
import json
import math
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from torch.utils import benchmark

Run = Callable[[], Any]


def seconds(run: Run) -> float:
    start = benchmark.timer()
    run()
    return benchmark.timer() - start


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


def versions() -> str:
    """What was measured."""
    names = ("torch", "opacus", "backpack-for-pytorch", "transformers")
    return ", ".join(f"{name} {_version(name)}" for name in names)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"
