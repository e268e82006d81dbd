"""What other libraries take for λ, for tr(HΣ) and for per-sample norms of the same samples."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from calls import Trained
from hessians import (
    LIMIT,
    curvlinops,
    curvlinops_top,
    eigenthings_lanczos,
    eigenthings_power,
    pyhessian_top,
)
from measure import Run
from methods import METHODS
from scipy.stats import t as student
from tasks import Task
from torch import Tensor, nn
from torch.nn import functional as F

from gradnoise.problem.state.guard import differentiable_kernels
from gradnoise.tensors.trees import Batch

RESIDUAL = 0.01  # of λ, relative, as `gn.sharpness` has it
ACCURACY = 0.15  # half an interval of tr(HΣ), relative, as `gn.noise_scale` has it
FIRST_DRAWS = 8  # before their spread says when to stop


@dataclass(frozen=True)
class Peer:
    """A way to a number.

    Args:
        prepare: ready to be timed, from the model and its samples.
        on_a_part: whether it is run on one micro-batch, whose plain pass is then the unit.
    """

    prepare: Callable[[Trained], Run]
    on_a_part: bool = False


class Logits(nn.Module):
    """A language model of `transformers` that gives the tensor alone."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor) -> Tensor:
        return self.model(input_ids=ids).logits


def pairs(of: Trained) -> tuple[Task, list[Batch]]:
    """As models of one input and its targets, which is what these libraries take."""
    if not isinstance(of.batch, dict):
        return Task(of.model, of.losses, of.batch), of.parts

    def losses(model: nn.Module, batch: Batch) -> Tensor:
        scores = model(batch[0]).movedim(-1, 1)
        return F.cross_entropy(scores, batch[1], reduction="none").mean(1)

    ids = [part["input_ids"] for part in of.parts]
    parts = [(own[:, :-1].contiguous(), own[:, 1:].contiguous()) for own in ids]
    return Task(Logits(of.model), losses, parts[0]), parts


def with_kernels(model: nn.Module, run: Run) -> Run:
    """With attention that has second derivatives."""

    def call() -> Any:
        with differentiable_kernels(model):
            return run()

    return call


def top(find: Callable[..., Any], of: Trained, **options: Any) -> Run:
    task, parts = pairs(of)
    return with_kernels(task.model, lambda: find(task, 0, batches=parts, **options))


def norms(method: str, of: Trained) -> Run:
    """Per-sample norms and the mean gradient."""
    aid = {}
    if isinstance(of.batch, dict):
        count, length = of.batch["input_ids"].shape
        aid = {"position_ids": torch.arange(length).expand(count, length)}
    return METHODS[method](Task(of.model, of.losses, of.batch, aid), ExitStack()).run


def hutchinson(noise: Callable[..., Iterator[Tensor]], of: Trained) -> Run:
    """B_noise = tr(HΣ)/GᵀHG: the mean of uᵀHu over draws of noise u with E[uuᵀ] = Σ.

    Until half its 95 % interval is 15 % of it.
    """
    task, parts = pairs(of)

    def run() -> tuple[float, int]:
        matrix, found = curvlinops(task, parts), []
        mean = gradient(task, parts)
        curvature = float(mean @ (matrix @ mean))
        for draw in noise(task, parts, mean):
            found.append(float(draw @ (matrix @ draw)))
            if len(found) >= FIRST_DRAWS:
                values = torch.tensor(found, dtype=torch.float64)
                reach = float(student.ppf(0.975, len(found) - 1)) / math.sqrt(len(found))
                if reach * float(values.std()) <= ACCURACY * abs(float(values.mean())):
                    break
            if len(found) == LIMIT:
                break
        return sum(found) / len(found) / curvature, len(found)

    return with_kernels(task.model, run)


def gradient(task: Task, parts: list[Batch], weights: list[Tensor] | None = None) -> Tensor:
    """Mean gradient, shape (P,), or Σ_i w_ig_i."""
    parameters, count = list(task.model.parameters()), sum(len(part[1]) for part in parts)
    weights = weights or [torch.full((len(part[1]),), 1 / count) for part in parts]
    total = torch.zeros(sum(p.numel() for p in parameters))
    for part, own in zip(parts, weights, strict=True):
        losses = task.losses(task.model, part)
        grads = torch.autograd.grad(losses, parameters, own)
        total += torch.cat([g.reshape(-1) for g in grads])
    return total


def single_samples(task: Task, parts: list[Batch], mean: Tensor) -> Iterator[Tensor]:
    """g_i - ḡ of samples drawn at random."""
    source = torch.Generator().manual_seed(0)
    while True:
        part = parts[int(torch.randint(len(parts), (), generator=source))]
        index = int(torch.randint(len(part[1]), (), generator=source))
        single = [(part[0][index : index + 1], part[1][index : index + 1])]
        yield gradient(task, single, [torch.ones(1)]) - mean


def random_signs(task: Task, parts: list[Batch], mean: Tensor) -> Iterator[Tensor]:
    """Σ_i s_i(g_i - ḡ)/√n with random signs s: one pass over all samples each."""
    source, sizes = torch.Generator().manual_seed(0), [len(part[1]) for part in parts]
    while True:
        signs = torch.randint(2, (sum(sizes),), generator=source) * 2.0 - 1.0
        rest = float(signs.sum()) * mean
        weights = list(torch.split(signs, sizes))
        yield (gradient(task, parts, weights) - rest) / math.sqrt(sum(sizes))


PEERS: dict[str, Peer] = {
    "λ: curvlinops, eigsh": Peer(functools.partial(top, curvlinops_top, tol=RESIDUAL)),
    "λ: PyHessian, change of 1e-3": Peer(
        functools.partial(top, functools.partial(pyhessian_top, 1e-3))
    ),
    "λ: hessian-eigenthings, Lanczos": Peer(
        functools.partial(top, eigenthings_lanczos, tol=RESIDUAL)
    ),
    "λ: hessian-eigenthings, power": Peer(functools.partial(top, eigenthings_power, tol=RESIDUAL)),
    "B_noise: Hutchinson, samples": Peer(functools.partial(hutchinson, single_samples)),
    "B_noise: Hutchinson, signs": Peer(functools.partial(hutchinson, random_signs)),
    "norms: BackPACK": Peer(functools.partial(norms, "backpack-l2"), on_a_part=True),
    "norms: Opacus, hooks": Peer(functools.partial(norms, "opacus-hooks"), on_a_part=True),
    "norms: Opacus, ghost": Peer(functools.partial(norms, "opacus-ghost"), on_a_part=True),
    "norms: torch.func": Peer(functools.partial(norms, "vmap"), on_a_part=True),
}
