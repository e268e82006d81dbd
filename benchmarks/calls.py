"""A model after some steps of SGD, and the measuring calls on it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from tasks import Task
from torch import Tensor, nn

import gradnoise as gn
from gradnoise.problem.losses.loss_fn import LossFn
from gradnoise.tensors.trees import Batch, map_samples, sample_count, split

STEPS, RATE, BATCH = 20, 0.05, 32
POPULATIONS = {"whole": "dataset", "part": "distribution"}


@dataclass(frozen=True)
class Trained:
    """A model after some steps, its losses, and the samples that are measured."""

    model: nn.Module
    losses: LossFn
    batch: Batch
    micro_batch: int
    optimizer: torch.optim.Optimizer

    @property
    def parts(self) -> list[Batch]:
        return list(split(self.batch, self.micro_batch))

    @property
    def part(self) -> Trained:
        """Its first micro-batch alone."""
        return replace(self, batch=self.parts[0])

    def plain(self) -> None:
        """A forward and backward pass over all samples."""
        parameters = list(self.model.parameters())
        for part in self.parts:
            torch.autograd.grad(self.losses(self.model, part).mean(), parameters)

    def call(self, name: str, population: str = "whole", **options: Any) -> Any:
        if name in SAMPLED:
            options["population"] = POPULATIONS[population]
        return CALLS[name](self, **options)

    def on(self, device: str, dtype: torch.dtype | None = None) -> Trained:
        """A copy on a device."""

        def moved(leaf: Tensor) -> Tensor:
            return leaf.to(device, dtype if leaf.is_floating_point() else None)

        model = copy.deepcopy(self.model).to(device, dtype)
        optimizer = torch.optim.SGD(model.parameters(), RATE)
        batch = map_samples(moved, self.batch)
        return replace(self, model=model, batch=batch, optimizer=optimizer)


def trained(task: Task, samples: int, micro_batch: int) -> Trained:
    """The task on as many random samples, the same at every call."""
    source = torch.Generator().manual_seed(1)

    def more(leaf: Tensor) -> Tensor:
        shape = samples, *leaf.shape[1:]
        if leaf.is_floating_point():
            return torch.randn(shape, generator=source)
        return torch.randint(int(leaf.max()) + 1, shape, generator=source)

    batch = map_samples(more, task.batch)
    optimizer = torch.optim.SGD(task.model.parameters(), RATE)
    for _ in range(STEPS):
        chosen = torch.randint(samples, (BATCH,), generator=source)
        here = map_samples(lambda leaf, index=chosen: leaf[index], batch)
        optimizer.zero_grad()
        task.losses(task.model, here).mean().backward()
        optimizer.step()
    optimizer.zero_grad()
    assert sample_count(batch) == samples
    return Trained(task.model, task.losses, batch, micro_batch, optimizer)


def _usual(function: Callable[..., Any], **more: Any) -> Callable[..., Any]:
    def call(at: Trained, **options: Any) -> Any:
        return function(
            at.model, at.losses, at.batch, micro_batch=at.micro_batch, **more, **options
        )

    return call


def _critical_lr(at: Trained, **options: Any) -> Any:
    return _usual(gn.critical_lr, optimizer=at.optimizer, batch_size=BATCH)(at, **options)


def _by_parts(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(at: Trained) -> None:
        for part in at.parts:
            function(at.model, at.losses, part)

    return call


def _product(operator: Callable[..., Any]) -> Callable[..., Any]:
    """Building the operator, and its first product."""

    def call(at: Trained) -> Any:
        matrix = _usual(operator)(at)
        return matrix @ torch.ones(matrix.shape[1], device=matrix.device, dtype=matrix.dtype)

    return call


def _tracked(at: Trained) -> Any:
    """The first value; later ones start from the vector before."""
    return _usual(gn.SharpnessTracker)(at).update()


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "gn.profile": gn.profile,
    "gn.noise_scale": gn.noise_scale,
    "gn.sharpness": gn.sharpness,
    "gn.gradient_moments": gn.gradient_moments,
    "gn.diagnostics": gn.diagnostics,
    "gn.covariance": gn.covariance,
    "gn.layer_noise_scales": gn.layer_noise_scales,
}
SAMPLED = {*FUNCTIONS, "gn.critical_lr"}  # those that ask whether the samples are a part of more
CALLS: dict[str, Callable[..., Any]] = {
    **{name: _usual(function) for name, function in FUNCTIONS.items()},
    "gn.critical_lr": _critical_lr,
    "gn.batch_sharpness": _usual(gn.batch_sharpness, batch_size=BATCH),
    "gn.spectral_density": _usual(gn.spectral_density),
    "gn.SharpnessTracker": _tracked,
    "gn.per_sample_sq_norms": _by_parts(gn.per_sample_sq_norms),
    "gn.per_sample_gradients": _by_parts(gn.per_sample_gradients),
    "gn.Hessian": _product(gn.Hessian),
    "gn.GaussNewton": _product(gn.GaussNewton),
}
