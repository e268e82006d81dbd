"""Time and peak memory of `gn.gradient_moments` against the number of samples and of parameters.

    python benchmarks/scaling.py --markdown

Each point is measured in a process of its own: seconds of the second call against a plain pass over
the same samples in the same micro-batches of 256 (forward, backward, mean loss), and the growth of
the peak resident set over what the process held with model and data. Exponents are least squares
slopes of logarithms. The last line is one epoch: 10 000 samples of an MLP 784-512-512-10, medians
of interleaved rounds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from typing import Any

import numpy as np
import torch
from measure import fresh, growth, rounded, seconds, show, versions
from torch import Tensor, nn

import gradnoise as gn

MICRO_BATCH = 256
SAMPLES = (1_000, 3_000, 10_000, 30_000, 100_000)
WIDTHS = {44: 25_600, 280: 12_800, 950: 5_120, 3_100: 2_560, 9_950: 768}  # hidden: samples
CLASSES = 10


def mlp(inputs: int, hidden: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(inputs, hidden),
        nn.ReLU(),
        nn.Linear(hidden, hidden),
        nn.ReLU(),
        nn.Linear(hidden, CLASSES),
    )


def data(samples: int, inputs: int) -> tuple[Tensor, Tensor]:
    return torch.randn(samples, inputs), torch.randint(CLASSES, (samples,))


def plain_epoch(model: nn.Module, inputs: Tensor, labels: Tensor) -> None:
    """Gradients of the mean loss of every micro-batch."""
    criterion, parameters = nn.CrossEntropyLoss(), list(model.parameters())
    for start in range(0, len(inputs), MICRO_BATCH):
        part = slice(start, start + MICRO_BATCH)
        torch.autograd.grad(criterion(model(inputs[part]), labels[part]), parameters)


def moments(model: nn.Module, inputs: Tensor, labels: Tensor) -> None:
    gn.gradient_moments(model, nn.CrossEntropyLoss(), (inputs, labels), micro_batch=MICRO_BATCH)


def work(inputs: int, hidden: int, samples: int) -> dict[str, Any]:
    """One point, in this process."""
    torch.manual_seed(0)
    plain_epoch(mlp(4, 4), *data(2, 4))  # libraries are loaded
    model, batch = mlp(inputs, hidden), data(samples, inputs)
    peak = growth(lambda: moments(model, *batch))
    rounds = [
        (seconds(lambda: moments(model, *batch)), seconds(lambda: plain_epoch(model, *batch)))
        for _ in range(3)
    ]
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "seconds": statistics.median(ours for ours, _ in rounds),
        "ratio": statistics.median(ours / plain for ours, plain in rounds),
        "bytes": peak,
    }


def point(inputs: int, hidden: int, samples: int) -> dict[str, Any]:
    print(f"{hidden} wide, {samples} samples", file=sys.stderr)
    found = fresh([__file__, "--worker", str(inputs), str(hidden), str(samples)])
    return {**found, "samples": samples}


def exponent(x: list[float], y: list[float]) -> float:
    """Slope of log y over log x."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def by_samples(markdown: bool) -> None:
    found = [point(64, 64, n) for n in SAMPLES]
    rows = [["samples n", "seconds", "in plain passes", "peak memory, MiB"]]
    rows += [
        [f"{p['samples']:,}", rounded(p["seconds"]), rounded(p["ratio"]), mebibytes(p)]
        for p in found
    ]
    n = [p["samples"] for p in found]
    slopes = [exponent(n, [p[key] for p in found]) for key in ("seconds", "bytes")]
    rows.append(["exponent in n", f"{slopes[0]:.2f}", "", f"{slopes[1]:.2f}"])
    show("against samples: MLP 64-64-64-10", rows, markdown)


def by_parameters(markdown: bool) -> None:
    found = [point(64, hidden, n) for hidden, n in WIDTHS.items()]
    rows = [
        ["parameters P", "ms per sample", "in plain passes", "peak, MiB", "copies of P float32"]
    ]
    for p in found:
        each, copies = 1e3 * p["seconds"] / p["samples"], p["bytes"] / (4 * p["parameters"])
        size = f"{p['parameters']:,}"
        rows.append([size, rounded(each), rounded(p["ratio"]), mebibytes(p), rounded(copies)])
    size = [p["parameters"] for p in found]
    times = exponent(size, [p["seconds"] / p["samples"] for p in found])
    upper = [f"{exponent(size[-2:], [p['bytes'] for p in found[-2:]]):.2f}"]
    rows.append(["exponent in P", f"{times:.2f}", "", *upper, ""])
    show("against parameters: MLP 64-h-h-10; memory exponent of the last two", rows, markdown)


def mebibytes(found: dict[str, Any]) -> str:
    return rounded(found["bytes"] / 2**20)


def epoch(rounds: int) -> None:
    model, batch = mlp(784, 512), data(10_000, 784)
    runs = [lambda: plain_epoch(model, *batch), lambda: moments(model, *batch)]
    for run in runs:
        run()
    taken = [[seconds(run) for run in runs] for _ in range(rounds)]
    ratio = statistics.median(ours / plain for plain, ours in taken)
    unit = statistics.median(plain for plain, _ in taken)
    print(
        f"\n10 000 samples of an MLP 784-512-512-10: {ratio:.2f} epochs of plain gradients "
        f"({unit:.2f} s), median of {rounds} rounds"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=11, help="of the epoch")
    parser.add_argument("--markdown", action="store_true", help="tables for GitHub")
    parser.add_argument("--only", choices=("samples", "parameters", "epoch"))
    parser.add_argument("--worker", nargs=3, type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.worker:
        print(json.dumps(work(*asked.worker)))
        return
    if asked.only in (None, "samples"):
        by_samples(asked.markdown)
    if asked.only in (None, "parameters"):
        by_parameters(asked.markdown)
    if asked.only in (None, "epoch"):
        epoch(asked.rounds)
    print(versions())


if __name__ == "__main__":
    main()
