"""What measuring costs on a CUDA device, and whether its numbers are those of the CPU.

    python benchmarks/gpu.py --markdown
    python benchmarks/gpu.py --device cpu --small     a trial of this script

Time: the device is waited for around every call; medians of interleaved rounds, in plain forward
and backward passes over the same samples. Memory: growth of `torch.cuda.max_memory_allocated`
during a call, in that of plain passes. "bf16" is under autocast, its plain pass too.

Values: what `gn.profile` finds on a part of the samples on the device, in float64 and float32, and
under autocast, against the CPU in float64 with the same seeds; largest relative differences of the
moments (loss, |G|², trΣ, B_simple), of λ and GᵀHG, and of tr(HΣ) and B_noise. Float32 and bfloat16
may stop after another number of random probes, and then differ by their errors. Without TF32.
"""

from __future__ import annotations

import argparse
import functools
import math
import statistics
import sys
from collections.abc import Iterable
from contextlib import nullcontext
from typing import Any

import torch
from calls import Trained, trained
from measure import Run, interleaved, rounded, show, versions
from tasks import SMALL, make

SAMPLES = {"mlp": (8192, 256), "cnn": (2048, 128), "gpt": (512, 16)}  # timed, compared
FEW = 24
MICRO_BATCH = {"mlp": 1024, "cnn": 512, "gpt": 128}
HALF = "gpt"  # is measured under autocast too
CALLS = (
    "gn.per_sample_sq_norms",
    "gn.gradient_moments",
    "gn.sharpness",
    "gn.noise_scale",
    "gn.profile",
)
PARTS = {
    "moments": ("loss", "grad_sq_norm", "trace_cov", "simple_noise_scale"),
    "λ, GᵀHG": ("sharpness", "grad_curvature"),
    "tr(HΣ), B_noise": ("trace_hessian_cov", "noise_scale"),
}
ALLOWED = {  # relative differences, by precision, in the order of PARTS
    "float64": (1e-9, 1e-6, 1e-6),
    "float32": (1e-4, 1e-3, 1e-2),
    "bf16": (0.05, 0.1, 0.1),
}
MIB = 2**20


def problem(model: str, small: bool, samples: int, device: str) -> Trained:
    task = make(SMALL[model] if small else model)
    return trained(task, samples, min(MICRO_BATCH[model], samples)).on(device)


def under(precision: str, device: str, run: Run) -> Run:
    """A call under autocast where asked for."""

    def call() -> Any:
        half = precision == "bf16"
        with torch.autocast(device, torch.bfloat16) if half else nullcontext():
            return run()

    return call


def runs(of: Trained, precision: str, device: str) -> dict[str, Run]:
    own = {"plain": of.plain, **{name: functools.partial(of.call, name) for name in CALLS}}
    return {name: under(precision, device, run) for name, run in own.items()}


def peak(run: Run) -> int:
    """Bytes that a call has at most, beyond what was there."""
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    run()
    return torch.cuda.max_memory_allocated() - before


def costs(asked: argparse.Namespace) -> tuple[list[list[str]], list[list[str]]]:
    """Tables of time and, on CUDA, of memory."""
    times = [[""], ["plain, ms"], *([name] for name in CALLS)]
    peaks = [[""], ["plain, MiB"], *([name] for name in CALLS)]
    for model, precision in columns(asked.models):
        label = f"{model}, {precision}" if precision else model
        print(f"time: {label}", file=sys.stderr)
        own = problem(model, asked.small, FEW if asked.small else SAMPLES[model][0], asked.device)
        ready = runs(own, precision, asked.device)
        taken = interleaved(ready, asked.rounds)
        ratios = (zip(taken[name], taken["plain"], strict=False) for name in CALLS)
        middle = [statistics.median(t / unit for t, unit in own) for own in ratios]
        add(times, label, 1e3 * statistics.median(taken["plain"]), middle)
        if asked.device == "cuda":
            unit, *rest = (peak(ready[name]) for name in ("plain", *CALLS))
            add(peaks, label, unit / MIB, [bytes_ / unit for bytes_ in rest])
    return times, peaks


def add(rows: list[list[str]], label: str, unit: float, rest: list[float]) -> None:
    """A column."""
    for row, cell in zip(rows, [label, *map(rounded, [unit, *rest])], strict=True):
        row.append(cell)


def columns(models: Iterable[str]) -> list[tuple[str, str]]:
    return [*((m, "") for m in models), *((m, "bf16") for m in models if m == HALF)]


def values(of: Trained, precision: str, device: str) -> dict[str, float]:
    """What a profile finds."""
    found = under(precision, device, functools.partial(of.call, "gn.profile"))()
    return {name: float(estimate) for name, estimate in found.estimates.items()}


def differences(model: str, asked: argparse.Namespace) -> dict[str, list[float]]:
    """The largest of each of PARTS, by precision."""
    print(f"values: {model}", file=sys.stderr)
    base = problem(model, asked.small, FEW if asked.small else SAMPLES[model][1], "cpu")
    truth = values(base.on("cpu", torch.float64), "float64", "cpu")
    found = {}
    for precision in ALLOWED:
        if precision == "bf16" and model != HALF:
            continue
        dtype = torch.float64 if precision == "float64" else torch.float32
        own = values(base.on(asked.device, dtype), precision, asked.device)
        found[precision] = [
            max(relative(own[name], truth[name]) for name in names) for names in PARTS.values()
        ]
    return found


def relative(found: float, truth: float) -> float:
    if math.isnan(found) and math.isnan(truth):
        return 0.0
    return abs(found - truth) / max(abs(truth), sys.float_info.min)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--models", nargs="+", choices=SAMPLES, default=list(SAMPLES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--small", action="store_true", help="models of a few hundred parameters")
    parser.add_argument("--markdown", action="store_true", help="tables for GitHub")
    asked = parser.parse_args()
    if asked.device == "cuda" and not torch.cuda.is_available():
        parser.exit(
            2, "no CUDA device here: `--device cpu --small` tries this script without one\n"
        )
    return asked


def main() -> None:
    asked = parsed()
    torch.backends.cudnn.allow_tf32 = False
    where = torch.cuda.get_device_name() if asked.device == "cuda" else "cpu"
    times, peaks = costs(asked)
    show(f"{where}: time in plain passes, medians of {asked.rounds}", times, asked.markdown)
    if asked.device == "cuda":
        show("growth of peak memory, in that of plain passes", peaks, asked.markdown)
    rows, wrong = [["", *PARTS]], []
    for model in asked.models:
        for precision, off in differences(model, asked).items():
            label = f"{model}, {precision}"
            rows.append([label, *(f"{o:.1e}" for o in off)])
            beyond = zip(PARTS, off, ALLOWED[precision], strict=True)
            wrong += [
                f"{label}: {part} is off by {o:.1e}" for part, o, most in beyond if not o <= most
            ]
    show("relative differences to float64 on the CPU", rows, asked.markdown)
    print(versions())
    if wrong:
        sys.exit("\n".join(["more than allowed:", *wrong]))


if __name__ == "__main__":
    main()
