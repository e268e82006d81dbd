"""Models whose losses are coupled, or random, and what they are written out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gradnoise.tensors.trees import map_samples
from tests.oracles import flat_grad

SOURCE = torch.Generator().manual_seed(4)
X = torch.randn(96, 6, generator=SOURCE, dtype=torch.float64)
Y = torch.randint(3, (96,), generator=SOURCE)
CE = nn.CrossEntropyLoss()


def mlp(*between: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), *between, nn.Tanh(), nn.Linear(5, 3)).double()


class Pixels(nn.Module):
    """A convolution with batch normalisation over 4×6 images of the six inputs."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm, self.head = nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Linear(3, 3)
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        images = x.view(-1, 1, 2, 3).repeat(1, 1, 2, 2)
        return self.head(F.relu(self.norm(self.conv(images))).mean((2, 3)))


def contrastive(model: nn.Module, batch: Any) -> Tensor:
    """One number for a batch: every sample is told from the others (SimCLR)."""
    first, second = (F.normalize(model(x), dim=1) for x in (batch[0], batch[0] + 0.1))
    return F.cross_entropy(first @ second.T / 0.5, torch.arange(len(first)))


def normalised_advantages(model: nn.Module, batch: Any) -> Tensor:
    """A policy gradient whose advantages are normalised over the batch."""
    advantages = batch[1].double()
    advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
    return -model(batch[0]).log_softmax(1)[:, 0] * advantages


COUPLED: dict[str, tuple[Any, Any]] = {
    "batch norm": (lambda: mlp(nn.BatchNorm1d(5)), CE),
    "batch norm over pixels": (Pixels, CE),
    "contrastive": (mlp, contrastive),
    "normalised advantages": (mlp, normalised_advantages),
}


def groups_of(problem: Any) -> list[Any]:
    """The groups of a problem that is open, in order."""
    return [
        map_samples(lambda leaf: leaf[k], batch.batch)  # noqa: B023
        for batch in problem.samples.batches
        for k in range(len(batch.seeds))
    ]


def written_out(model: nn.Module, losses: list[Tensor]) -> tuple[Tensor, Tensor]:
    """The gradient and the Hessian of every loss, (K, P) and (K, P, P)."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    gradients, hessians = [], []
    for loss in losses:
        gradient = flat_grad(loss, parameters, create_graph=True)
        rows = [flat_grad(entry, parameters, retain_graph=True) for entry in gradient]
        gradients.append(gradient.detach())
        hessians.append(torch.stack(rows))
    return torch.stack(gradients), torch.stack(hessians)


def group_loss(model: nn.Module, loss_fn: Any, group: Any) -> Tensor:
    """What a training step on this batch minimises."""
    loss = CE(model(group[0]), group[1]) if loss_fn is CE else loss_fn(model, group)
    return loss.mean()
