"""The noise scale of a LightningModule: `python examples/lightning_module.py [FOLDER]`.

The values go to Lightning's logger (FOLDER/lightning_logs) and to FOLDER/run.jsonl.
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import gradnoise as gn


class Regression(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 1))

    def training_step(self, batch: Any) -> Tensor:
        inputs, targets = batch
        loss = nn.functional.mse_loss(self.net(inputs).squeeze(1), targets)
        self.log("loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.02, momentum=0.9)


def data() -> TensorDataset:
    torch.manual_seed(0)
    inputs = torch.randn(1024, 8)
    return TensorDataset(inputs, inputs[:, 0] * inputs[:, 1] + 0.1 * torch.randn(1024))


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    module = Regression()
    trainer = pl.Trainer(
        max_epochs=8,
        accelerator="cpu",
        gradient_clip_val=1.0,
        logger=CSVLogger(folder),
        log_every_n_steps=8,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    monitor = gn.attach(trainer, model=module, every=4, sink=folder / "run.jsonl")
    trainer.fit(module, DataLoader(data(), batch_size=64, shuffle=True))
    print(monitor)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp()))
