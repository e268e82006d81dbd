"""Optimizers that have taken steps, and their P, D and E written out by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from gradnoise.problem.losses.criterion import supervised
from tests import oracles
from tests.cases import Case


def grouped(make: Any, parameters: list[Tensor]) -> Any:
    """The last parameter in a group of its own: three times the learning rate, no decay."""
    own = {"params": parameters[-1:], "lr": 0.03, "weight_decay": 0.0}
    return make([{"params": parameters[:-1]}, own])


OPTIMIZERS: dict[str, Any] = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.01, weight_decay=0.3),
    "Adam": lambda p: torch.optim.Adam(p, lr=0.01, weight_decay=0.3),
    "amsgrad": lambda p: torch.optim.Adam(p, lr=0.01, amsgrad=True),
    "AdamW": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.3),
    "NAdam": lambda p: torch.optim.NAdam(p, lr=0.01),
    "RMSprop": lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.5, centered=True),
    "Adagrad": lambda p: torch.optim.Adagrad(p, lr=0.01, lr_decay=0.1, weight_decay=0.3),
    "Adafactor": lambda p: torch.optim.Adafactor(p, lr=0.01, weight_decay=0.3),
    "AdamW in groups": lambda p: grouped(
        lambda groups: torch.optim.AdamW(groups, lr=0.01, weight_decay=0.3), p
    ),
}


class Lion(torch.optim.Optimizer):
    """Sign descent with momentum, whose betas are no part of the groups."""

    def __init__(self, parameters: Any) -> None:
        super().__init__(parameters, {"lr": 0.01, "weight_decay": 0.1})
        self.betas = (0.9, 0.99)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                mean = self.state[p].setdefault("mean", torch.zeros_like(p))
                toward = mean.lerp(p.grad, 1 - self.betas[0]).sign() + group["weight_decay"] * p
                p.sub_(toward, alpha=group["lr"])
                mean.lerp_(p.grad, 1 - self.betas[1])


def trained(case: Case, name: str) -> tuple[nn.Module, Any, Any, Any]:
    """A model after three steps, its loss, its batch, and the optimizer with its state."""
    return trained_with(case, OPTIMIZERS[name])


def trained_with(case: Case, make: Any) -> tuple[nn.Module, Any, Any, Any]:
    """The same with the optimizer that `make(parameters)` gives."""
    model, loss_fn, batch = case.build()
    losses = supervised(loss_fn) if isinstance(loss_fn, nn.Module) else loss_fn
    optimizer = make(list(model.parameters()))
    for _ in range(3):
        optimizer.zero_grad()
        losses(model, batch).mean().backward()
        optimizer.step()
    optimizer.zero_grad()
    return model, loss_fn, batch, optimizer


def by_hand(optimizer: Any, steps: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """Diagonals of P, D and E after so many steps."""
    scales, inside, outside = [], [], []
    name, first = type(optimizer).__name__, optimizer.param_groups[0]
    for group in optimizer.param_groups:
        for p in group["params"]:
            state, scale = optimizer.state[p], torch.ones_like(p)
            if "Adam" in name:
                v = state["max_exp_avg_sq" if group.get("amsgrad") else "exp_avg_sq"]
                scale = (v / (1 - 0.999**steps)).sqrt() + 1e-8
            elif name == "RMSprop":
                scale = (state["square_avg"] - state["grad_avg"] ** 2).clamp(min=0).sqrt() + 1e-8
            elif name == "Adagrad":
                scale = (state["sum"].sqrt() + 1e-10) * (1 + 0.1 * steps)
            elif name == "Adafactor":
                scale = factored(state) / p.detach().square().mean().sqrt()
            pace, decay = group["lr"] / first["lr"], torch.full_like(p, group["weight_decay"])
            decoupled = name in ("AdamW", "Adafactor")
            scales.append(scale / pace)
            inside.append(0 * decay if decoupled else decay)
            outside.append(pace * decay if decoupled else 0 * decay)
    joined = (torch.cat([t.detach().flatten() for t in ts]) for ts in (scales, inside, outside))
    return tuple(joined)  # type: ignore[return-value]


def factored(state: Any) -> Tensor:
    """√V of Adafactor: of a matrix, from means over its rows and columns."""
    if "variance" in state:
        return state["variance"].sqrt()
    rows, columns = state["row_var"][..., 0], state["col_var"][..., 0, :]
    joint = torch.einsum("...i,...j->...ij", rows, columns)
    return (joint / rows.mean(-1)[..., None, None]).sqrt()


def in_coordinates(model: nn.Module, truth: oracles.Dense, optimizer: Any) -> oracles.Dense:
    """P^-½(g_i + Dw) and P^-½(H_i + D)P^-½."""
    scale, inside, _ = by_hand(optimizer)
    root, point = scale.rsqrt(), nn.utils.parameters_to_vector(model.parameters()).detach()
    return replace(
        truth,
        gradients=root * (truth.gradients + inside * point),
        hessians=root[:, None] * (truth.hessians + torch.diag(inside)) * root,
    )
