"""Short, literal, float64: what the library must agree with."""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gradnoise.problem.losses.criterion import supervised
from gradnoise.tensors.trees import sample_count, select


@dataclass(frozen=True)
class Dense:
    """Everything written out: losses [n], gradients [n, P], Hessians [n, P, P]."""

    losses: Tensor
    gradients: Tensor
    hessians: Tensor

    @property
    def hessian(self) -> Tensor:
        return self.hessians.mean(0)

    @property
    def covariance(self) -> Tensor:
        return torch.cov(self.gradients.T)


def dense(model: nn.Module, loss_fn: Any, batch: Any, *, second: bool = True) -> Dense:
    """One sample after the other; every row of every Hessian by its own backward pass."""
    losses_of = supervised(loss_fn) if isinstance(loss_fn, nn.Module) else loss_fn
    parameters = [p for p in model.parameters() if p.requires_grad]
    losses, gradients, hessians = [], [], []
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        for i in range(sample_count(batch)):
            (loss,) = losses_of(model, select(batch, slice(i, i + 1)))
            gradient = flat_grad(loss, parameters, create_graph=second)
            losses.append(loss.detach())
            gradients.append(gradient.detach())
            if second:
                rows = [flat_grad(entry, parameters, retain_graph=True) for entry in gradient]
                hessians.append(torch.stack(rows))
    return Dense(
        torch.stack(losses),
        torch.stack(gradients),
        torch.stack(hessians) if second else torch.zeros(0),
    )


def differenced(model: nn.Module, loss_fn: Any, batch: Any, step: float = 1e-5) -> Dense:
    """The same with Hessians as differences of gradients, entry by entry; a float64 model."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    found, columns = dense(model, loss_fn, batch, second=False), []
    for parameter in parameters:
        for entry in range(parameter.numel()):
            ends = []
            for sign in (1, -1):
                parameter.data.view(-1)[entry] += sign * step
                ends.append(dense(model, loss_fn, batch, second=False).gradients)
                parameter.data.view(-1)[entry] -= sign * step
            columns.append((ends[0] - ends[1]) / (2 * step))
    return Dense(found.losses, found.gradients, torch.stack(columns, dim=2))


def mean_hessian(model: nn.Module, criterion: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    """H of the mean loss of many samples, every row by its own backward pass."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    gradient = flat_grad(criterion(model(inputs), targets), parameters, create_graph=True)
    return torch.stack([flat_grad(entry, parameters, retain_graph=True) for entry in gradient])


@functools.cache
def dense_of(case: Any) -> Dense:
    """Of a case as it is built, written out once; it is only read."""
    return dense(*case.build())


class Given(nn.Module):
    """A model that gives what it was given."""

    def __init__(self, output: Tensor) -> None:
        super().__init__()
        self.output = output

    def forward(self, *_: Any) -> Tensor:
        return self.output


def gauss_newton(model: nn.Module, loss_fn: Any, batch: Any) -> Tensor:
    """Mean of J_iᵀ(∂²ℓ_i/∂z²)J_i, row by row; for losses that call `model(...)` once."""
    losses_of = supervised(loss_fn) if isinstance(loss_fn, nn.Module) else loss_fn
    parameters = [p for p in model.parameters() if p.requires_grad]
    total, count = 0.0, sample_count(batch)
    outputs: list[Tensor] = []
    handle = model.register_forward_hook(lambda _m, _i, output: outputs.append(output))
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        for i in range(count):
            sample = select(batch, slice(i, i + 1))
            losses_of(model, sample)
            (z,) = (outputs.pop(),)
            jacobian = torch.stack(
                [flat_grad(entry, parameters, retain_graph=True) for entry in z.reshape(-1)]
            )
            curvature = torch.autograd.functional.hessian(
                lambda given, sample=sample: losses_of(Given(given), sample).sum(), z.detach()
            ).reshape(z.numel(), z.numel())
            total = total + jacobian.T @ curvature @ jacobian / count
    handle.remove()
    return total


def flat_grad(output: Tensor, parameters: list[Tensor], **options: bool) -> Tensor:
    if not output.requires_grad:
        return torch.cat([torch.zeros_like(p).reshape(-1) for p in parameters])
    parts = torch.autograd.grad(output, parameters, allow_unused=True, **options)
    return torch.cat(
        [
            (torch.zeros_like(p) if g is None else g.to_dense() if g.is_sparse else g).reshape(-1)
            for g, p in zip(parts, parameters, strict=True)
        ]
    )


def grad_sq_norm(g: Tensor, population: float) -> float:
    """E‖mean over the population‖², from averages over distinct samples."""
    same, distinct = _mean(g[i] @ g[i] for i in range(len(g))), _distinct_pairs(g)
    return same / population + distinct * (1 - 1 / population)


def trace_cov(g: Tensor) -> float:
    return _mean(g[i] @ g[i] for i in range(len(g))) - _distinct_pairs(g)


def grad_curvature(dense: Dense, population: float) -> float:
    """GᵀHG of the population: g_iᵀH_kg_j over all i, j, k of it, seen through distinct ones."""
    one, n = _patterns(dense), population
    if math.isinf(n):
        return one["all distinct"]
    return (
        (n - 1) * (n - 2) * one["all distinct"]
        + (n - 1) * (one["i = j"] + 2 * one["i = k"])
        + one["all same"]
    ) / n**2


def trace_hessian_cov(dense: Dense, population: float) -> float:
    """tr(HΣ) of the population, Σ with 1/(N - 1): N/(N - 1) (mean g_iᵀHg_i - GᵀHG)."""
    one, n = _patterns(dense), population
    if math.isinf(n):
        return one["i = j"] - one["all distinct"]
    own = ((n - 1) * one["i = j"] + one["all same"]) / n
    return n / (n - 1) * (own - grad_curvature(dense, n))


def _patterns(dense: Dense) -> dict[str, float]:
    g, h, n = dense.gradients, dense.hessians, len(dense.gradients)
    form = torch.einsum("ip,kpq,jq->ijk", g, h, g)
    triples, pairs = itertools.permutations(range(n), 3), list(itertools.permutations(range(n), 2))
    return {
        "all distinct": _mean(form[i, j, k] for i, j, k in triples),
        "i = j": _mean(form[i, i, k] for i, k in pairs),
        "i = k": _mean(form[i, j, i] for i, j in pairs),
        "all same": _mean(form[i, i, i] for i in range(n)),
    }


def _distinct_pairs(g: Tensor) -> float:
    return _mean(g[i] @ g[j] for i, j in itertools.permutations(range(len(g)), 2))


def _mean(values: Any) -> float:
    return float(torch.stack(list(values)).mean())


def complete_probes(n: int) -> Tensor:
    """Weights in place of random signs that make every average over probes exact.

    Rows √n·e_i, E[wwᵀ] = I, in a ring in which every ordered pair of rows meets once: the closed
    walk over all pairs (i, j) that steps i -> j.
    """
    walk = [0]
    unused = {i: list(range(n)) for i in range(n)}
    path: list[int] = []
    while walk:  # Hierholzer
        if unused[walk[-1]]:
            walk.append(unused[walk[-1]].pop())
        else:
            path.append(walk.pop())
    return math.sqrt(n) * torch.eye(n, dtype=torch.float64)[path[:-1]]


def columns(model: nn.Module, names: tuple[str, ...]) -> Tensor:
    """Positions of some parameters in the flat gradient."""
    sizes = {n: p.numel() for n, p in model.named_parameters() if p.requires_grad}
    kept = torch.tensor([name in names for name in sizes])
    return kept.repeat_interleave(torch.tensor(list(sizes.values()))).nonzero()[:, 0]
