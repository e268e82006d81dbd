"""The demo: what profile, advise and sweep name for the digits, and how it trains."""

from __future__ import annotations

import copy
import statistics
from typing import Any

import torch
from torch import nn

import gradnoise as gn
from benchmarks import measure
from gradnoise.toy.digits import BATCH_SIZE, digits

from .truth import short

EPOCHS, SEEDS, GRID = 15, (1, 2, 3), (0.1, 0.2, 0.4, 0.8, 1.6)


def trained(start: Any, data: Any, batch_size: int, lr: float, fresh: bool) -> list[float]:
    """Losses of all images after `EPOCHS` of plain SGD, by seed."""
    images, labels = data.tensors
    losses = []
    for seed in SEEDS:
        torch.manual_seed(seed)
        model = digits(epochs=0, seed=seed)[0] if fresh else copy.deepcopy(start)
        optimizer = torch.optim.SGD(model.parameters(), lr=lr)
        for _ in range(EPOCHS):
            for rows in torch.randperm(len(images)).split(batch_size):
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(images[rows]), labels[rows]).backward()
                optimizer.step()
        with torch.no_grad():
            losses.append(float(nn.functional.cross_entropy(model(images), labels)))
    return losses


def show(markdown: bool) -> None:
    model, criterion, data, optimizer = digits()
    profile = gn.profile(model, criterion, data, optimizer=optimizer, batch_size=BATCH_SIZE)
    named = profile.recommend()
    advice = gn.advise(
        model, criterion, data, optimizer, batch_size=BATCH_SIZE, budget=40 * len(data)
    )
    pairs = {
        "in use": (BATCH_SIZE, 0.1),
        "profile": (named.batch_size, named.lr),
        "advise, 40 epochs": (advice.batch_size, advice.lr),
        **{f"grid {size}, {lr}": (size, lr) for size in (8, 32, 128) for lr in GRID},
    }
    table = [["named by", "B", "rate", "from the measured model", "from scratch"]]
    for name, (size, lr) in pairs.items():
        if size is None or lr is None:
            table.append([name, "–", "–", "–", "–"])
            continue
        found = [trained(model, data, size, lr, fresh) for fresh in (False, True)]
        name = "grid" if name.startswith("grid") else name
        cells = [f"{short(statistics.median(x))} ({short(max(x))})" for x in found]
        table.append([name, str(size), short(lr), *cells])
    measure.show(f"loss of the digits after {EPOCHS} epochs, median (worst)", table, markdown)
