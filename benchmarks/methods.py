"""Ways to per-sample squared norms and the mean gradient: ours, other libraries, by hand."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import torch
from tasks import Task, library
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.utils._pytree import tree_map

import gradnoise as gn
from gradnoise.per_sample.choice import ENGINES, choose
from gradnoise.per_sample.contract.summary import Wanted
from gradnoise.problem.objective import Objective
from gradnoise.tensors.trees import Batch, sample_count, select

Found = tuple[Tensor, Sequence[Tensor]]  # ‖g_i‖² of shape (n,), mean gradient by parameter
Run = Callable[[], Any]


@dataclass(frozen=True)
class Method:
    """A way to per-sample norms and the mean gradient, ready to run.

    Args:
        run: what is timed; gives `Found` where `checked`.
        note: what people should know about it.
        checked: whether there are norms to hold to the loop.
    """

    run: Run
    note: str = ""
    checked: bool = True


def plain(task: Task, _: ExitStack) -> Method:
    """The unit: forward and backward pass of the mean loss."""
    parameters = list(task.model.parameters())

    def run() -> Any:
        return torch.autograd.grad(task.losses(task.model, task.batch).mean(), parameters)

    return Method(run, checked=False)


def ours(engine: str, task: Task, stack: ExitStack) -> Method:
    """An engine of gradnoise that has been chosen already."""
    objective = Objective(task.model, task.losses)
    stack.enter_context(objective.guard())
    chosen = choose(objective, task.batch, engine)

    def run() -> Found:
        norms, sums = [], list[Tensor]()
        for part in chosen.summaries(task.batch, Wanted()):
            norms.append(torch.stack([*part.sq_norms.values()]).sum(0))
            for total, own in zip(sums, part.total.values(), strict=False):
                total.add_(own)
            sums = sums or list(part.total.values())
        count = sum(map(len, norms))
        return torch.cat(norms), [total.div_(count) for total in sums]

    return Method(run, f"chose {chosen.name!r}" if engine == "auto" else "")


def choice(task: Task, stack: ExitStack) -> Method:
    """What "auto" costs once per model."""
    objective = Objective(task.model, task.losses)
    stack.enter_context(objective.guard())

    def run() -> Any:
        objective.findings = {}  # of no earlier call
        return choose(objective, task.batch, "auto")

    return Method(run, checked=False)


def norms_again(task: Task, _: ExitStack) -> Method:
    """`gn.per_sample_sq_norms` from the second call on."""
    return Method(
        lambda: gn.per_sample_sq_norms(task.model, task.losses, task.batch), checked=False
    )


def moments_again(task: Task, _: ExitStack) -> Method:
    """`gn.gradient_moments` of one batch from the second call on."""

    def run() -> Found:
        found = gn.gradient_moments(task.model, task.losses, task.batch)
        return found.sq_norms, [*found.mean.values()]

    return Method(run)


def backpack(extension: str, saved: str, task: Task, _: ExitStack) -> Method:
    """BackPACK on the layers that own parameters; it divides by n what the mean loss divides."""
    package = library("backpack", "backpack")
    for module in task.model.modules():
        if not list(module.children()) and list(module.parameters()):
            package.extend(module)
    parameters, count = list(task.model.parameters()), sample_count(task.batch)

    def run() -> Found:
        with package.backpack(getattr(package.extensions, extension)()):
            task.losses(task.model, task.batch).mean().backward()
        _refuse_missing(task.model, saved)
        found = [vars(p).pop(saved) for p in parameters]
        norms = sum(
            own if own.ndim == 1 and saved == "batch_l2" else sq_norms(own) for own in found
        )
        return count**2 * norms, _taken(parameters)

    return Method(run)


def _refuse_missing(model: nn.Module, saved: str) -> None:
    """BackPACK passes over layers that it does not know."""
    kinds = {
        type(module).__name__
        for module in model.modules()
        if any(saved not in vars(p) for p in module.parameters(recurse=False))
    }
    if kinds:
        raise NotImplementedError(f"BackPACK leaves no {saved} on {', '.join(sorted(kinds))}")


def opacus_hooks(task: Task, _: ExitStack) -> Method:
    """Opacus' gradients of every sample."""
    task, note = _aided(task)
    model = library("opacus.grad_sample", "bench").GradSampleModule(task.model)
    parameters = list(model.parameters())

    def run() -> Found:
        task.losses(model, task.batch).mean().backward()
        norms = torch.stack([sq_norms(p.grad_sample) for p in parameters]).sum(0)
        mean = _taken(parameters)
        model.zero_grad(set_to_none=True)
        return norms, mean

    return Method(run, note)


def opacus_ghost(task: Task, _: ExitStack) -> Method:
    """Opacus' ghost clipping up to the norms, without the second backward pass that clips."""
    task, note = _aided(task)
    module = library("opacus.grad_sample", "bench").GradSampleModuleFastGradientClipping
    model = module(task.model)
    parameters = list(model.parameters())

    def run() -> Found:
        task.losses(model, task.batch).mean().backward()
        return model.get_norm_sample().square(), _taken(parameters)

    return Method(run, note)


def vmap_grad(task: Task, _: ExitStack) -> Method:
    """torch.func as its tutorial has it: all samples at once."""
    alone = _Losses(task)
    values = {name: p.detach() for name, p in alone.named_parameters()}

    def loss(values: dict[str, Tensor], sample: Batch) -> Tensor:
        single = tree_map(lambda leaf: leaf.unsqueeze(0), sample)
        return functional_call(alone, values, (single,)).sum()

    per_sample = vmap(grad(loss), in_dims=(None, 0))

    def run() -> Found:
        gradients = per_sample(values, task.batch).values()
        norms = torch.stack([sq_norms(g) for g in gradients]).sum(0)
        return norms, [g.mean(0) for g in gradients]

    return Method(run)


def loop(task: Task, _: ExitStack) -> Method:
    """A forward and backward pass per sample."""
    parameters, count = list(task.model.parameters()), sample_count(task.batch)

    def run() -> Found:
        norms, mean = [], [torch.zeros_like(p) for p in parameters]
        for index in range(count):
            losses = task.losses(task.model, select(task.batch, slice(index, index + 1)))
            gradients = torch.autograd.grad(losses.sum(), parameters)
            norms.append(sum(g.square().sum() for g in gradients))
            torch._foreach_add_(mean, gradients, alpha=1 / count)
        return torch.stack(norms), mean

    return Method(run)


class _Losses(nn.Module):
    """Per-sample losses as a module, whose parameters `functional_call` can swap."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.model, self.losses = task.model, task.losses

    def forward(self, batch: Batch) -> Tensor:
        return self.losses(self.model, batch)


def sq_norms(gradients: Tensor) -> Tensor:
    """‖g_i‖², shape (n,)."""
    return torch.linalg.vector_norm(gradients.flatten(1), dim=1).square()


def _taken(parameters: Iterable[nn.Parameter]) -> list[Tensor]:
    """The gradients, which do not stay on the parameters."""
    found = []
    for parameter in parameters:
        found.append(parameter.grad)
        parameter.grad = None
    return found


def _aided(task: Task) -> tuple[Task, str]:
    if not task.aid:
        return task, ""
    given = ", ".join(task.aid)
    return replace(task, batch=task.batch | task.aid), f"given {given} for each sample"


Prepare = Callable[[Task, ExitStack], Method]
METHODS: dict[str, Prepare] = {
    "ours-auto": functools.partial(ours, "auto"),
    "ours-choice": choice,
    "norms-again": norms_again,
    "moments-again": moments_again,
    **{f"ours-{name}": functools.partial(ours, name) for name in ENGINES},
    "backpack-l2": functools.partial(backpack, "BatchL2Grad", "batch_l2"),
    "backpack-grad": functools.partial(backpack, "BatchGrad", "grad_batch"),
    "opacus-hooks": opacus_hooks,
    "opacus-ghost": opacus_ghost,
    "vmap": vmap_grad,
    "loop": loop,
}
