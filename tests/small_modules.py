"""A small classifier as a LightningModule, and a trainer on the CPU."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

SAMPLES = 14


def network(dropout: float = 0.0) -> nn.Sequential:
    """Two layers."""
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Dropout(dropout), nn.Linear(6, 3))


def samples(count: int = SAMPLES) -> TensorDataset:
    """Inputs that say something about their labels."""
    source = torch.Generator().manual_seed(2)
    labels = torch.randint(0, 3, (count,), generator=source)
    inputs = torch.randn(count, 5, generator=source) + nn.functional.one_hot(labels, 5)
    return TensorDataset(inputs, labels)


class Classifier(pl.LightningModule):
    """Keeps the batches and the parameters of every step."""

    def __init__(self, dropout: float = 0.0, through: str = "net") -> None:
        super().__init__()
        self.net = network(dropout)
        self.through = through
        self.passes: dict[int, list[Any]] = {}

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.net(inputs)
        return logits

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        inputs, labels = batch
        state = copy.deepcopy(self.net.state_dict())
        self.passes.setdefault(self.trainer.global_step, []).append((state, inputs, labels))
        logits = self(inputs) if self.through == "forward" else self.net(inputs)
        loss = nn.functional.cross_entropy(logits, labels)
        self.log("loss", loss)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", nn.functional.cross_entropy(self(batch[0]), batch[1]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.5, momentum=0.9)


def loader(batch_size: int = 4) -> DataLoader[Any]:
    """In order; the last batch of an epoch has 2 samples."""
    return DataLoader(samples(), batch_size=batch_size)


def trainer(folder: Path, **options: Any) -> pl.Trainer:
    """A Trainer on the CPU: three epochs, clipped at 0.1, everything logged."""
    own: dict[str, Any] = {
        "accelerator": "cpu",
        "max_epochs": 3,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "gradient_clip_val": 0.1,
        "log_every_n_steps": 1,
        "default_root_dir": str(folder),
    }
    return pl.Trainer(**{**own, **options})


def fit(run: pl.Trainer, module: pl.LightningModule, **options: Any) -> None:
    """Train, without the advice on numbers of workers."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        run.fit(module, loader(), **options)
