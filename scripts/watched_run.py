"""Makes the run that docs/watch.md shows and the tests read: python scripts/watched_run.py

A network on digits with 10 % wrong labels, SGD at B = 256, a rate that falls from 0.5 to 0.05 over
4000 steps, every 20th step measured. Every second line is kept, with four digits.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from torch import nn

import gradnoise as gn
from gradnoise.files.json import encode
from gradnoise.toy.digits import digits_net, trained_digits

PATH = Path(__file__).parents[1] / "tests" / "history" / "digits.jsonl"
STEPS, BATCH_SIZE, FIRST, LAST = 4000, 256, 0.5, 0.05


def rounded(value: Any) -> Any:
    return float(f"{value:.4g}") if isinstance(value, float) and math.isfinite(value) else value


def main() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    images, labels = trained_digits(epochs=0)[2].tensors
    wrong = torch.rand(len(labels)) < 0.1
    labels = torch.where(wrong, torch.randint(0, 10, labels.shape), labels)
    model, criterion, lines = digits_net(), nn.CrossEntropyLoss(), []
    optimizer = torch.optim.SGD(model.parameters(), FIRST)
    monitor = gn.NoiseMonitor(
        model,
        optimizer,
        every=20,
        max_samples=None,
        sink=lines.append,
        loss_fn=criterion,
        data=(images, labels),
    )
    for k in range(STEPS):
        fallen = (1 + math.cos(math.pi * k / STEPS)) / 2
        optimizer.param_groups[0]["lr"] = LAST + (FIRST - LAST) * fallen
        rows = torch.randint(0, len(labels), (BATCH_SIZE,))
        optimizer.zero_grad()
        with monitor.step() as step:
            loss = criterion(model(images[rows]), labels[rows])
            loss.backward()
            step.loss = loss
        optimizer.step()
    found = [{key: rounded(value) for key, value in line.items()} for line in lines[::2]]
    for k, line in enumerate(found):
        line["time"] = 1_800_000_000 + k
    PATH.write_text("".join(json.dumps(encode(line)) + "\n" for line in found), encoding="utf-8")


if __name__ == "__main__":
    main()
