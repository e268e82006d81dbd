"""A sweep as one program per batch size, and one run after another.

    python benchmarks/sweep.py

Digits, MLP 64-64-10, 10 epochs, 10 batch sizes, 12 learning rates, 3 seeds: 360 runs. Both ways
take turns, batch size by batch size, in the same process.
"""

from __future__ import annotations

import argparse
import time

import torch
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_digits
from torch import nn

import gradnoise as gn
from gradnoise.toy.digits import digits_net


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=float, default=10)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    bunch = load_digits()
    inputs = torch.as_tensor(bunch.data[:1024], dtype=torch.float32) / 16
    data = inputs, torch.as_tensor(bunch.target[:1024])
    shown = Table("B", "together", "one by one", "ratio", title="seconds")
    totals = [0.0, 0.0]
    for power in range(10):
        spent = []
        for vectorise in (True, False):
            start = time.perf_counter()
            gn.sweep(
                digits_net, nn.CrossEntropyLoss(), data, batch_sizes=[2**power],
                lrs=[2.0**k for k in range(-7, 5)], epochs=options.epochs, seeds=options.seeds,
                vectorise=vectorise,
            )  # fmt: skip
            spent.append(time.perf_counter() - start)
        totals = [total + one for total, one in zip(totals, spent, strict=True)]
        shown.add_row(str(2**power), *(f"{s:.1f}" for s in spent), f"{spent[1] / spent[0]:.1f}")
    shown.add_row("all", *(f"{s:.0f}" for s in totals), f"{totals[1] / totals[0]:.1f}")
    Console().print(shown)


if __name__ == "__main__":
    main()
