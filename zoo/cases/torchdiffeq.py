"""torchdiffeq: networks that are differential equations."""

from __future__ import annotations

from typing import Any

import torch
import torchdiffeq
from torch import Tensor, nn
from torch.nn import functional as F

from ..case import Case

FEW = 16


class Field(nn.Module):
    """dx/dt as a function of x."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 2))

    def forward(self, _: Tensor, x: Tensor) -> Tensor:
        return self.net(x)  # type: ignore[no-any-return]


class Flow(nn.Module):
    """Where the equation carries its inputs."""

    def __init__(self, method: str, *, adjoint: bool = False) -> None:
        super().__init__()
        self.field, self.method = Field(), method
        self.solve = torchdiffeq.odeint_adjoint if adjoint else torchdiffeq.odeint

    def forward(self, x: Tensor) -> Tensor:
        times = torch.tensor([0.0, 0.5], dtype=x.dtype)
        return self.solve(self.field, x, times, method=self.method, rtol=1e-9, atol=1e-11)[-1]


def points(source: torch.Generator) -> Any:
    x = torch.randn(FEW, 2, generator=source, dtype=torch.float64)
    return (x, x.flip(1) + 0.5)


def squares(model: nn.Module, batch: Any) -> Tensor:
    return F.mse_loss(model(batch[0]), batch[1], reduction="none").mean(1)


def _case(name: str, method: str, **more: Any) -> Case:
    adjoint = more.pop("adjoint", False)
    build = lambda: Flow(method, adjoint=adjoint).double().train()  # noqa: E731
    return Case(name, build, nn.MSELoss(), squares, points, **more)


CASES = [
    _case("Runge-Kutta, fixed steps", "rk4"),
    _case("Dormand-Prince, adaptive steps", "dopri5", rtol=1e-6),
    _case("Runge-Kutta with the adjoint equation", "rk4", adjoint=True, rtol=1e-5),
]
