"""How often one profile runs the model: forward and backward passes over its samples.

    python benchmarks/passes.py

A forward pass is the loss of n samples evaluated once; a backward pass is one call of
`torch.autograd.grad` or `.backward` on a micro-batch, in units of n samples (products through kept
graphs are backward passes without a forward one). Seconds are in units of one plain forward and
backward pass over the same samples.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

import gradnoise as gn

BATCH = 256


class Counter:
    """A loss that counts the samples it is evaluated on, and the backward passes after it."""

    def __init__(self) -> None:
        self.samples = self.last = 0
        self.backward = 0

    def __call__(self, model: nn.Module, batch: Any) -> Tensor:
        self.last = len(batch[1])
        self.samples += self.last
        return nn.functional.cross_entropy(model(batch[0]), batch[1], reduction="none")

    @contextmanager
    def counting(self) -> Any:
        """Count calls of autograd, each for as many samples as the last loss had."""
        plain = torch.autograd.grad

        def grad(*args: Any, **options: Any) -> Any:
            self.backward += self.last
            return plain(*args, **options)

        torch.autograd.grad = grad
        try:
            yield
        finally:
            torch.autograd.grad = plain


def problem(samples: int) -> tuple[nn.Module, tuple[Tensor, Tensor]]:
    """A three-layer network on random data."""
    torch.manual_seed(0)
    sizes = (nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10))
    inputs = torch.randn(samples, 64)
    return nn.Sequential(*sizes), (inputs, torch.randint(10, (samples,)))


def plain_seconds(model: nn.Module, data: tuple[Tensor, Tensor], repeats: int = 9) -> float:
    """Median time of a forward and backward pass in micro-batches."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        for x, y in zip(data[0].split(BATCH), data[1].split(BATCH), strict=True):
            nn.functional.cross_entropy(model(x), y).backward()
        times.append(time.perf_counter() - start)
    model.zero_grad()
    return sorted(times)[len(times) // 2]


def count(name: str, call: Callable[[nn.Module, Counter, Any], Any], samples: int) -> None:
    """One row of the table."""
    model, data = problem(samples)
    plain, counter = plain_seconds(model, data), Counter()
    start = time.perf_counter()
    with counter.counting():
        call(model, counter, data)
    seconds = time.perf_counter() - start
    forward, backward = counter.samples / samples, counter.backward / samples
    print(f"| {name} | {forward:.1f} | {backward:.1f} | {seconds / plain:.0f} |")


def main() -> None:
    torch.set_num_threads(1)
    print("| call | forward passes | backward passes | time in plain passes |")
    print("|---|---|---|---|")
    for name, call in (
        ("gn.profile", gn.profile),
        ("gn.noise_scale", gn.noise_scale),
        ("gn.sharpness", gn.sharpness),
        ("gn.gradient_moments", gn.gradient_moments),
    ):
        for population in ("dataset", "distribution"):

            def run(model: nn.Module, loss: Counter, data: Any, call: Any = call) -> Any:
                return call(model, loss, data, population=population)  # noqa: B023

            count(f"{name}, {population}", run, 1024)


if __name__ == "__main__":
    main()
