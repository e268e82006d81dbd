"""The noise scale in a training loop of your own: `python examples/plain_loop.py [FOLDER]`.

Two micro-batches per optimizer step, and clipped gradients. The values go to FOLDER/run.jsonl. With
the sharpness and the losses in it, the file tells which batch size the run should have had.
"""

import sys
import tempfile
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import gradnoise as gn

CLASSES, INPUTS, PARTS = 5, 20, 2


def data() -> TensorDataset:
    """Gaussian clouds around one centre per class."""
    torch.manual_seed(0)
    labels = torch.randint(CLASSES, (2048,))
    return TensorDataset(2 * torch.eye(INPUTS)[labels] + torch.randn(2048, INPUTS), labels)


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    samples = data()
    loader = DataLoader(samples, batch_size=32, shuffle=True, drop_last=True)
    model = nn.Sequential(nn.Linear(INPUTS, 64), nn.ReLU(), nn.Linear(64, CLASSES))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    monitor = gn.NoiseMonitor(
        model, optimizer, every=4, sink=folder / "run.jsonl",
        loss_fn=nn.CrossEntropyLoss(), data=samples,  # for the sharpness, on 64 of them
    )  # fmt: skip
    for _ in range(12):
        batches = iter(loader)
        for first in batches:
            optimizer.zero_grad()
            with monitor.step() as step:  # all passes of one optimizer step
                total = torch.zeros(())
                for inputs, labels in (first, next(batches)):
                    loss = nn.functional.cross_entropy(model(inputs), labels) / PARTS
                    loss.backward()
                    total += loss.detach()
                step.loss = total
            nn.utils.clip_grad_norm_(model.parameters(), 0.5)  # after the step of the monitor
            optimizer.step()
    print(monitor)
    print(gn.pool(folder / "run.jsonl"))


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp()))
