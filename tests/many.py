"""A problem of many samples whose gradients and Hessians can be written out: linear regression."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gradnoise.measurement.opened import Opened
from gradnoise.problem.options import Options

COUNT, SIZE = 640, 5


@dataclass(frozen=True)
class Written:
    """g_i (n, P) and H_i (n, P, P) of the squared error."""

    gradients: Tensor
    hessians: Tensor

    @property
    def gaps(self) -> Tensor:
        return self.gradients - self.gradients.mean(0)

    @property
    def trace(self) -> float:
        """tr(HΣ) of these samples, both from all of them."""
        return float((self.hessians.mean(0) @ torch.cov(self.gradients.T)).trace())

    @property
    def along(self) -> float:
        """ḡᵀHḡ."""
        mean = self.gradients.mean(0)
        return float(mean @ self.hessians.mean(0) @ mean)

    def unbiased(self, population: float) -> tuple[float, float]:
        """tr(HΣ) and GᵀHG of the population; docs/theory/noise_scale.md."""
        n, gaps, mean = len(self.gradients), self.gaps, self.gradients.mean(0)
        centred = self.hessians - self.hessians.mean(0)
        own = torch.einsum("np,npq,nq->n", gaps, centred, gaps)
        mixed = float(torch.einsum("p,npq,nq->n", mean, centred, gaps).sum()) / (n - 1)
        third = n * float(own.sum()) / ((n - 1) * (n - 2))
        factor = 1 / n - 1 / population
        trace = self.trace - factor * third
        rest = trace + 2 * (mixed - factor * third) + (1 / n - 2 / population) * third
        return trace, self.along - factor * rest


def regression(
    count: int = COUNT, seed: int = 0
) -> tuple[nn.Module, nn.Module, tuple[Tensor, Tensor]]:
    """A linear model with skewed inputs, its criterion and its data, float64."""
    source = torch.Generator().manual_seed(seed)
    scales = torch.tensor([2.0, 1.4, 1.0, 0.7, 0.4], dtype=torch.float64)
    inputs = torch.randn(count, SIZE, generator=source, dtype=torch.float64) * scales
    inputs *= 1 + 0.1 * inputs[:, :1].abs()  # large gradients come with large Hessians
    noise = torch.randn(count, generator=source, dtype=torch.float64)
    targets = inputs @ torch.linspace(0.2, 0.6, SIZE, dtype=torch.float64) + noise
    model = nn.Linear(SIZE, 1, bias=False).double()
    nn.init.zeros_(model.weight)
    return model, nn.MSELoss(), (inputs, targets[:, None])


def written(batch: tuple[Tensor, Tensor], model: nn.Module) -> Written:
    inputs, targets = batch
    errors = model(inputs) - targets
    return Written(2 * errors.detach() * inputs, 2 * torch.einsum("np,nq->npq", inputs, inputs))


def opened(population: str | int = "dataset", seed: int = 0, micro_batch: int = 100) -> Opened:
    model, criterion, batch = regression()
    options = Options(population=population, seed=seed, micro_batch=micro_batch)
    return Opened.open(model, criterion, batch, options)
