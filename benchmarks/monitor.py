"""What `gn.NoiseMonitor` costs, how often its intervals cover, and how far it is behind.

    python benchmarks/monitor.py --markdown
    python benchmarks/monitor.py --tables overhead --models gpt --rounds 40

overhead: a training step (zero_grad, forward, backward, SGD) that is measured by each source, and
one that is not, over the same step without a monitor; interleaved, medians of the rounds' ratios.
memory: the peak of a fresh process over what it held before the step, over that of a plain step.
coverage: digits, the weights after three epochs, batches of 32 drawn with replacement: how often
the interval after k measurements holds the exact B_simple of the data, trΣ and |G|².
lag: |G|² falls by a factor of 10 over the run; how many measurements ago the truth was what is
reported.
"""

from __future__ import annotations

import json
import math
import statistics
import sys
from collections.abc import Callable

import measure
import torch
from tasks import MODELS, make
from torch import nn

import gradnoise as gn
from gradnoise.toy.digits import trained_digits

TABLES = ("overhead", "memory", "coverage", "lag")
SOURCES = ("samples", "norm_layers", "micro_batches")
PARTS = 4  # micro-batches of an accumulation


class Loop:
    """Training steps of a task, with a monitor or without."""

    def __init__(self, name: str, source: str = "", every: int = 1) -> None:
        task = make(name)
        self.task, self.model = task, task.model
        self.optimizer = torch.optim.SGD(task.model.parameters(), 1e-4)
        self.parts = [task.batch]
        if source == "micro_batches":
            self.parts = list(zip(*(t.chunk(PARTS) for t in task.batch), strict=True))
        self.monitor = gn.NoiseMonitor(task.model, every=every, source=source) if source else None

    def step(self) -> None:
        self.optimizer.zero_grad()
        if self.monitor is None:
            self._passes()
        else:
            with self.monitor.step():
                self._passes()
        self.optimizer.step()

    def _passes(self) -> None:
        for part in self.parts:
            (self.task.losses(self.model, part).mean() / len(self.parts)).backward()


def loops(name: str) -> dict[str, Loop]:
    """The plain loops and the watched ones."""
    found = {"plain": Loop(name), "not measured": Loop(name, "samples", every=10**9)}
    for source in SOURCES:
        try:
            found[source] = Loop(name, source)
        except gn.ArgumentError:  # no normalisation layers
            continue
    found["plain, accumulated"] = Loop(name)
    found["plain, accumulated"].parts = found["micro_batches"].parts
    for loop in found.values():
        for _ in range(2):
            loop.step()
    return found


def overhead(names: list[str], rounds: int) -> list[list[str]]:
    columns = ["not measured", *SOURCES]
    rows = [["", "plain, ms", *columns]]
    for name in names:
        own = loops(name)
        taken = measure.interleaved({key: loop.step for key, loop in own.items()}, rounds)
        row = [name, f"{1e3 * statistics.median(taken['plain']):.0f}"]
        for column in columns:
            base = "plain, accumulated" if column == "micro_batches" else "plain"
            if column not in taken:
                row.append("–")
                continue
            ratios = [a / b for a, b in zip(taken[column], taken[base], strict=True)]
            row.append(f"{statistics.median(ratios):.3f}")
        rows.append(row)
    return rows


def peak(name: str, source: str) -> None:
    """One step of a fresh process, after two others; prints bytes."""
    Loop("mlp", "samples").step()  # loads what is imported when it is needed
    loop = Loop(name, source if source != "plain" else "")
    plain = Loop(name)
    plain.step()
    print(json.dumps({"bytes": measure.growth(lambda: [loop.step() for _ in range(3)])}))


def memory(names: list[str]) -> list[list[str]]:
    rows = [["", "plain, MiB", *SOURCES[:2]]]
    for name in names:
        found = [
            measure.fresh([__file__, "--worker", name, source]).get("bytes")
            for source in ("plain", *SOURCES[:2])
        ]
        plain = found[0]
        ratios = ["–" if own is None else f"{own / plain:.2f}" for own in found[1:]]
        rows.append([name, f"{plain / 2**20:.0f}", *ratios])
    return rows


def coverage(repeats: int) -> list[list[str]]:
    model, criterion, data, _ = trained_digits(epochs=3)
    truth = gn.gradient_moments(model, criterion, data, population="dataset")
    signal = sum(float(g.double().square().sum()) for g in truth.mean.values())
    count = len(data)
    trace = float(truth.trace_cov) * (count - 1) / count  # of draws with replacement
    truths = (trace / signal, trace, signal)
    images, labels = data.tensors
    rows = [["", "measurements", "B_simple", "trΣ", "|G|²", "resolved", "half width"]]
    for source in ("samples", "micro_batches"):
        at = (10, 40, 120)
        hits = {k: [0, 0, 0, 0] for k in at}
        widths: dict[int, list[float]] = {k: [] for k in at}
        for repeat in range(repeats):
            draw = torch.Generator().manual_seed(repeat)
            monitor = gn.NoiseMonitor(model, every=1, source=source)
            for k in range(1, at[-1] + 1):
                model.zero_grad()
                rows_of = torch.randint(count, (32,), generator=draw)
                parts = rows_of.chunk(PARTS if source == "micro_batches" else 1)
                with monitor.step():
                    for part in parts:
                        loss = criterion(model(images[part]), labels[part]) / len(parts)
                        loss.backward()
                if k in at:
                    found = monitor.noise_scale
                    own = (found, found.trace_cov, found.grad_sq_norm)
                    for i, (estimate, exact) in enumerate(zip(own, truths, strict=True)):
                        hits[k][i] += estimate.low <= exact <= estimate.high
                    hits[k][3] += found.is_resolved
                    if found.is_resolved:
                        widths[k].append((found.high - found.low) / 2 / found.value)
        for k in at:
            width = f"{statistics.median(widths[k]):.0%}" if widths[k] else "–"
            shares = [f"{hit / repeats:.3f}" for hit in hits[k]]
            rows.append([source, str(k), *shares, width])
    return rows


def lag(repeats: int) -> list[list[str]]:
    rows = [["run of", "reported at its end", "truth", "behind, measurements"]]
    for steps in (50, 100, 200, 400):
        found = []
        for repeat in range(repeats):
            draw = torch.Generator().manual_seed(repeat)
            monitor = gn.NoiseMonitor(nn.Linear(1, 1))
            for k in range(steps):
                size = 0.2 * 10 ** (-k / steps / 2)  # |G|² = 30·size²
                noise = torch.randn(32, 30, generator=draw, dtype=torch.float64)
                own = size + noise
                small, big = own.square().sum(1).mean(), own.mean(0).square().sum()
                monitor.update(small, big, 1, 32)
            found.append(float(monitor.trace_cov) / float(monitor.grad_sq_norm))
        truth = 10 / 0.04 * 10 ** (-1 / steps)
        told = statistics.median(found)
        rows.append(
            [str(steps), f"{told:.0f}", f"{truth:.0f}", f"{steps * math.log10(truth / told):.1f}"]
        )
    return rows


def main() -> None:
    parser = measure.common_options(__doc__, MODELS)
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=list(TABLES))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--repeats", type=int, default=200)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.worker:
        peak(*options.worker)
        return
    tables: dict[str, Callable[[], list[list[str]]]] = {
        "overhead": lambda: overhead(options.models, options.rounds),
        "memory": lambda: memory(options.models),
        "coverage": lambda: coverage(options.repeats),
        "lag": lambda: lag(options.repeats),
    }
    for name in options.tables:
        measure.show(name, tables[name](), options.markdown)
        sys.stdout.flush()


if __name__ == "__main__":
    main()
