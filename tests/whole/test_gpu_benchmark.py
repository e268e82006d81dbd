"""The benchmark of CUDA devices runs, here on the CPU, so that it is known to work."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.py"


def ran(*options: str) -> subprocess.CompletedProcess[str]:
    command, without = [sys.executable, str(SCRIPT), *options], {"CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | without
    )


def test_it_runs_on_the_cpu_where_all_values_are_those_of_the_cpu() -> None:
    options = "--device", "cpu", "--small", "--markdown", "--rounds", "1", "--models", "cnn", "gpt"
    done = ran(*options)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    (times,) = (line for line in lines if line.startswith("| gn.profile"))
    assert all(float(cell.replace(",", "")) > 1 for cell in times.split("|")[2:-1])
    assert "| gpt, float64 | 0.0e+00 | 0.0e+00 | 0.0e+00 |" in lines
    assert "| cnn, float64 | 0.0e+00 | 0.0e+00 | 0.0e+00 |" in lines
    assert sum(line.startswith(("| cnn, float32", "| gpt, bf16")) for line in lines) == 2


def test_without_a_device_it_says_what_to_do() -> None:
    done = ran()
    assert done.returncode == 2
    said = "no CUDA device here: `--device cpu --small` tries this script without one\n"
    assert done.stderr == said
