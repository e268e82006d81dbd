"""The four reports that docs/report.md shows: `python -m scripts.report_cases FOLDER [NAME ...]`.

Digits, a ResNet with batch normalisation, a GPT-2 of two layers under AdamW, and a case that its
samples do not resolve. Each is written as JSON, as text, as a page, and as a picture of the page.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import gradnoise as gn
from gradnoise.toy.digits import digits
from tests.browser import browser, opened


def digits_case() -> gn.Profile:
    """The network of the demo, with advice that was tried."""
    model, criterion, data, optimizer = digits()
    p = gn.profile(model, criterion, data, optimizer=optimizer, batch_size=32)
    budget = 40 * len(data)
    return p.with_advice(gn.advise(model, criterion, data, optimizer, batch_size=32, budget=budget))


class Block(nn.Module):
    """Two convolutions with batch normalisation, and what goes past them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convs = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x + self.convs(x))


def resnet_case() -> gn.Profile:
    """A ResNet on the digits as images, in training mode, after two epochs of SGD."""
    torch.manual_seed(0)
    _, criterion, flat, _ = digits(epochs=0)
    data = TensorDataset(flat.tensors[0].reshape(-1, 1, 8, 8), flat.tensors[1])
    stem = nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU()
    head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10)
    model = nn.Sequential(*stem, Block(8), Block(8), *head)
    loader = DataLoader(data, batch_size=64, shuffle=True, drop_last=True)
    sgd = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    _train(model, criterion, loader, sgd, epochs=2)
    return gn.profile(model, criterion, loader, optimizer=sgd, max_samples=768)


class Gpt(nn.Module):
    """GPT-2's blocks with tied embeddings, on bytes."""

    def __init__(self, width: int = 48, length: int = 32) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(256, width), nn.Embedding(length, width)
        layer = nn.TransformerEncoderLayer(
            width, 4, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(layer, 2, nn.LayerNorm(width), False)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(length))
        nn.init.normal_(self.tokens.weight, std=0.02)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.tokens(ids) + self.places.weight[: ids.shape[1]]
        x = self.blocks(x, mask=self.mask, is_causal=True)
        return x @ self.tokens.weight.T


def next_byte(model: nn.Module, batch: tuple[torch.Tensor]) -> torch.Tensor:
    """The loss of a sequence: the mean over its bytes."""
    (ids,) = batch
    logits = model(ids[:, :-1])
    losses = nn.functional.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none")
    return losses.mean(1)


def gpt_case() -> gn.Profile:
    """A small GPT-2 on Python's own source files, after 1200 steps of AdamW."""
    torch.manual_seed(0)
    files = sorted(Path(argparse.__file__).parent.glob("*.py"))[:60]
    text = b"".join(file.read_bytes() for file in files)
    ids = torch.frombuffer(bytearray(text), dtype=torch.uint8).long()
    rows = ids[: len(ids) // 33 * 33].reshape(-1, 33)
    loader = DataLoader(TensorDataset(rows), batch_size=32, shuffle=True, drop_last=True)
    model = Gpt()
    adam = torch.optim.AdamW(model.parameters(), lr=3e-3)
    steps = 0
    while steps < 1200:
        for batch in loader:
            adam.zero_grad()
            next_byte(model, batch).mean().backward()
            adam.step()
            steps += 1
            if steps == 1200:
                break
    return gn.profile(
        model, next_byte, loader, optimizer=adam, max_samples=1024, population="distribution"
    )


def unresolved_case() -> gn.Profile:
    """The digits after 60 epochs, of which 64 samples were measured."""
    model, criterion, data, optimizer = digits(epochs=60)
    return gn.profile(model, criterion, data, optimizer=optimizer, batch_size=32, max_samples=64)


def _train(
    model: nn.Module, criterion: nn.Module, loader: DataLoader, optimizer: torch.optim.Optimizer,
    epochs: int,
) -> None:  # fmt: skip
    for _ in range(epochs):
        for inputs, targets in loader:
            optimizer.zero_grad()
            criterion(model(inputs), targets).backward()
            optimizer.step()


CASES: dict[str, Callable[[], gn.Profile]] = {
    "digits": digits_case,
    "resnet": resnet_case,
    "gpt": gpt_case,
    "unresolved": unresolved_case,
}
HEIGHT = 1900  # of a picture of a page, its first part


def main(folder: Path, names: list[str]) -> None:
    """Write NAME.json, NAME.html, NAME.txt and report_NAME.png of the cases."""
    for name in names or list(CASES):
        p = CASES[name]()
        p.save(folder / f"{name}.json")
        p.to_html(folder / f"{name}.html")
        (folder / f"{name}.txt").write_text(f"{p}\n", encoding="utf-8")
    with browser() as running:
        for name in names or list(CASES):
            with opened(running, folder / f"{name}.html", width=1000) as page:
                height = min(HEIGHT, page.evaluate("document.documentElement.scrollHeight"))
                clip = {"x": 0, "y": 0, "width": 1000, "height": height}
                page.screenshot(path=folder / f"report_{name}.png", clip=clip, full_page=True)


if __name__ == "__main__":
    torch.set_num_threads(1)  # small models
    main(Path(sys.argv[1]), sys.argv[2:])
