"""Lightning: modules with a training step of their own."""

from __future__ import annotations

from typing import Any

import lightning
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics.classification import MulticlassAccuracy

import gradnoise as gn

from ..case import COUNT, Case, loader


class Classifier(lightning.LightningModule):
    """Batch normalisation, dropout, a metric and a log."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(6, 8), nn.BatchNorm1d(8), nn.GELU(), nn.Dropout(0.1), nn.Linear(8, 3)
        )
        self.accuracy = MulticlassAccuracy(3)

    def training_step(self, batch: Any, _: int) -> Tensor:
        x, y = batch
        logits = self.net(x)
        loss = F.cross_entropy(logits, y)
        self.log("loss", loss)
        self.log("accuracy", self.accuracy(logits, y))
        return loss


class Autoencoder(lightning.LightningModule):
    """A step that returns a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(6, 2), nn.Linear(2, 6)

    def training_step(self, batch: Any) -> dict[str, Tensor]:
        x, _ = batch
        loss = F.mse_loss(self.decoder(torch.tanh(self.encoder(x))), x)
        self.log_dict({"loss": loss})
        return {"loss": loss}


def vectors(source: torch.Generator) -> Any:
    x = torch.randn(COUNT, 6, generator=source, dtype=torch.float64)
    return loader(x, torch.randint(3, (COUNT,), generator=source))


def own_classifier(model: Any, batch: Any) -> Tensor:
    return F.cross_entropy(model.net(batch[0]), batch[1])


def own_autoencoder(model: Any, batch: Any) -> Tensor:
    return F.mse_loss(model.decoder(torch.tanh(model.encoder(batch[0]))), batch[0])


def _case(name: str, kind: Any, own: Any, **more: Any) -> Case:
    def loss_fn(model: nn.Module, batch: Any) -> Tensor:
        return gn.lightning(model)(model, batch)

    return Case(name, lambda: kind().double().train(), loss_fn, own, vectors, unit="group", **more)


CASES = [
    _case(
        "classifier with batch norm, dropout and a metric", Classifier, own_classifier, random=True
    ),
    _case("autoencoder whose step returns a dict", Autoencoder, own_autoencoder),
]
