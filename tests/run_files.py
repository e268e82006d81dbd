"""Files as a monitor writes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from gradnoise.files.json import encode
from gradnoise.history.run_file import Run

# a network on digits with 10 % wrong labels: scripts/watched_run.py
DIGITS = Path(__file__).parent / "history" / "digits.jsonl"


def line(step: int, **values: Any) -> str:
    """A line of a measured step; values by their names without prefix."""
    known = {"noise_scale": 100.0, "noise_scale_low": 80.0, "noise_scale_high": 130.0}
    known |= {"batch_size": 10.0, "measured": 1.0, "skipped": 0.0, **values}
    named = {f"gradnoise/{name}": value for name, value in known.items()}
    return json.dumps(encode({"step": step, "time": 1000.0 + step, "source": "samples", **named}))


def written(path: Path, *lines: str, end: str = "\n") -> Path:
    """A file of these lines."""
    path.write_text("\n".join(lines) + end, encoding="utf-8")
    return path


def run_of(*lines: dict[str, float], source: str = "samples") -> Run:
    """The run of these lines, columns by their names without prefix."""
    known = {"noise_scale": 100.0, "noise_scale_low": 80.0, "noise_scale_high": 130.0}
    known |= {"batch_size": 10.0, "measured": 1.0, "skipped": 0.0, "time": 1000.0}
    full = [{"step": float(k), **known, **values} for k, values in enumerate(lines)]
    names = dict.fromkeys(name for each in full for name in each)
    columns = {name: np.array([each.get(name, np.nan) for each in full]) for name in names}
    return Run(columns, (source,) * len(full))
