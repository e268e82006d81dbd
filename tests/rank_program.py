"""What torchrun starts on every rank: `python -m tests.rank_program FOLDER NAME ...`.

Results are written to FOLDER, a file for each program and rank; test files read them.
"""

from __future__ import annotations

import gc
import math
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset, TensorDataset
from torch.utils.data.distributed import DistributedSampler

import gradnoise as gn
from gradnoise.problem import gathering
from gradnoise.problem.full_precision import FullPrecisionError
from gradnoise.ranks import ranks
from gradnoise.tensors import random as random_numbers
from tests.rank_models import COUNT, MLP, held, losses, model_of, part_of, samples_of

Numbers = dict[str, Any]
SOON = 30  # seconds
TOL = 0.05  # of eigenpairs
ALL = ("mlp", "gpt", "resnet")
WAYS: dict[int, dict[str, tuple[str, ...]]] = {  # and the models that are held in them
    1: {"plain": ("mlp",), "whole": ("mlp",), "tensor parallel": ("mlp",)},
    2: dict.fromkeys(("ddp", "whole", "blocks", "blocks and root", "tensor parallel"), ALL),
    3: {"plain": ("resnet",), "blocks and root": ("gpt",)},
    4: {"hybrid": ALL, "both": ("mlp", "gpt"), "mixed precision": ("mlp",)},
}
OPTIONS: dict[str, Any] = {"population": "distribution"}
QUICK: dict[str, Any] = {**OPTIONS, "accuracy": 1.0, "tol": 0.1}  # the same steps, and fewer


def numbers(*estimates: Any) -> list[float]:
    return [float(x) for e in estimates for x in (e.value, e.low, e.high)]


def shares_of(layer: Any) -> list[float]:
    """Of λ, GᵀHG and tr(HΣ)."""
    found = (layer.sharpness_share, layer.curvature_share, layer.curvature_noise_share)
    return [math.nan if own is None else float(own.value) for own in found]


def profiled(model: nn.Module, loss_fn: Any, data: Any, **options: Any) -> Numbers:
    """The quantities of a profile, with their intervals, and its layers."""
    p = gn.profile(model, loss_fn, data, **{**QUICK, **options})
    found = {name: numbers(own) for name, own in p.estimates.items()}
    layers = {
        name: [*numbers(own.trace_cov, own.grad_sq_norm), own.noise_share, *shares_of(own)]
        for name, own in p.layers.items()
    }
    other = sum("are not the derivatives" in note for note in p.warnings)
    return {**found, **layers, "samples": [p.samples, p.population, p.batch_size or 0, other]}


def calls(model: nn.Module, data: Any, **options: Any) -> Numbers:
    """Every measuring call."""
    loss_fn, few = nn.CrossEntropyLoss(), {**OPTIONS, **options}
    group = {k: v for k, v in options.items() if k == "process_group"}
    vector = torch.linspace(-1, 1, sum(p.numel() for p in model.parameters())).double()
    moments = gn.gradient_moments(model, loss_fn, data, variance=True, **few)
    scale = gn.noise_scale(model, loss_fn, data, **few)
    sharp = gn.sharpness(model, loss_fn, data, k=2, tol=0.1, **few)
    noise = gn.covariance(model, loss_fn, data, **few)
    m = gn.measure(model, loss_fn, data, **few)
    told = m.diagnostics()
    layers = gn.layer_noise_scales(model, loss_fn, data, **few)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    rate = gn.critical_lr(model, loss_fn, data, optimizer=optimizer, **few)
    averaged = {name: 0.9 * value for name, value in model.state_dict().items()}
    swing = gn.swing(model, loss_fn, data, averaged, **few)
    rows = gn.PerSampleGradients(model, loss_fn, data, **group)
    variance = moments.variance or {}
    return {
        "moments": numbers(moments.loss, moments.grad_sq_norm, moments.trace_cov),
        "variance": torch.cat([own.flatten() for own in variance.values()]),
        "mean": torch.cat([own.flatten() for own in moments.mean.values()]),
        "noise_scale": numbers(scale.hessian, scale.grad_curvature, scale.trace_hessian_cov),
        "sharpness": [*numbers(sharp.estimate), *sharp.values.tolist()],
        "covariance": numbers(noise.top_eigenvalue, noise.trace_sq, noise.effective_rank),
        "eigenvalues": noise.pairs.values[:3],
        "measured": numbers(m.sharpness().estimate, m.moments().simple_noise_scale),
        "diagnostics": numbers(told.sign_noise_scale, told.diversity_bound, told.norm_test),
        "layers": [v for own in layers.values() for v in numbers(own.sharpness, own.noise.hessian)],
        "critical_lr": numbers(rate),
        "batch_sharpness": numbers(gn.batch_sharpness(model, loss_fn, data, batch_size=8, **group)),
        "density": [
            gn.spectral_density(model, loss_fn, data, probes=1, steps=8, **group).upper_edge
        ],
        "swing": numbers(swing.share, swing.averaged.simple_noise_scale),
        "tracker": gn.SharpnessTracker(model, loss_fn, data, **group).update().values,
        "hessian": gn.Hessian(model, loss_fn, data, **group) @ vector,
        "finite": gn.Hessian(model, loss_fn, data, hvp="finite", **group) @ vector,
        "forward": gn.Hessian(model, loss_fn, data, hvp="forward", **group) @ vector,
        "gauss_newton": gn.GaussNewton(model, loss_fn, data, **group) @ vector,
        "covariance of": gn.GradientCovariance(model, loss_fn, data, **group) @ vector,
        "rows": rows @ vector,
        "rows, transposed": rows.T @ torch.linspace(-1, 1, rows.shape[0]).double(),
        "cost": [gn.estimate_cost(model, loss_fn, data, **group).passes],
    }


def kinds_of_data(rank: int, size: int, options: Any) -> Numbers:
    """Loaders, subsets, weights, dropout, groups and the metric of an optimizer."""
    samples, loss_fn = samples_of("mlp"), nn.CrossEntropyLoss()
    own, model = part_of(samples, rank, size), model_of("mlp")
    whole = TensorDataset(*samples)
    sampler = DistributedSampler(whole, size, rank) if size > 1 else None
    loader = DataLoader(whole, 12 // size, sampler=sampler)
    weighted = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 0.5]).double())
    adam = torch.optim.AdamW(model.parameters(), lr=0.01)
    loss_fn(model(samples[0]), samples[1]).backward()
    adam.step()
    model.zero_grad()
    found = {
        "some of a loader": profiled(model, loss_fn, loader, max_samples=19, **options),
        "list": profiled(model, loss_fn, [own] if len(own[0]) else [], **options),
        "weights": profiled(model, weighted, own, **options),
    }
    return (
        found
        if size == 3
        else found
        | {
            "loader": profiled(model, loss_fn, loader, **options),
            "many": profiled(
                model, loss_fn, part_of(samples_of("mlp", 600), rank, size), **options
            ),
            "some of the parts": profiled(
                model, loss_fn, own, max_samples=19, population="dataset", **options
            ),
            "the same on all": profiled(model, loss_fn, samples, **options),
            "metric": profiled(model, loss_fn, own, optimizer=adam, **options),
        }
    )


def random(rank: int, size: int, options: Any) -> Numbers:
    """Dropout and batch normalisation, whose draws and groups are those of the ranks."""
    samples = samples_of("mlp", 64 * 6)
    each = 64 * 6 // size
    own = tuple(rows[rank * each : (rank + 1) * each] for rows in samples)
    torch.manual_seed(0)
    dropping = nn.Sequential(nn.Linear(10, 8), nn.Dropout(0.2), nn.Tanh(), nn.Linear(8, 3)).double()
    normal = nn.Sequential(nn.Linear(10, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)).double()
    loss_fn = nn.CrossEntropyLoss()
    dropped = gn.profile(dropping, loss_fn, own, **options)
    grouped = gn.profile(normal, loss_fn, own, group_size=8, **options)
    return {
        "dropout": [*numbers(dropped.trace_cov, dropped.sharpness), dropped.samples],
        "groups": [*numbers(grouped.trace_cov, grouped.sharpness), grouped.samples],
    }


def about(kind: str, size: int = 2) -> dict[str, Any]:
    """Samples are a part of the population for one model: λ of halves takes as long again."""
    return {"population": "distribution" if (kind, size) == ("mlp", 2) else "dataset", "tol": 0.1}


def everywhere(rank: int, size: int, options: Any) -> Numbers:
    """Models in all ways that so many ranks hold them."""
    found: Numbers = {}
    for way, kinds in WAYS[size].items():
        for kind in kinds:
            samples = samples_of(kind)
            own = samples if way == "tensor parallel" else part_of(samples, rank, size)
            if way == "both":
                own = part_of(samples, rank // 2, 2)
            model = held(model_of(kind), way, size)
            found[f"{kind}, {way}"] = profiled(model, losses, own, **about(kind, size), **options)
    return found


LAYERED: dict[int, dict[str, tuple[str, ...]]] = {
    2: {"whole": ("mlp",), "blocks and root": ALL},
    3: {"blocks and root": ("mlp",)},
    4: {"hybrid": ("mlp",)},
}


def whole(tensors: Any) -> Tensor:
    """All entries, of tensors that ranks may hold parts of."""
    found = [t.full_tensor() if isinstance(t, DTensor) else t for t in tensors.values()]
    return torch.cat([own.flatten() for own in found])


def moments_of(model: nn.Module, data: Any, **options: Any) -> Numbers:
    """With intervals, variances and layers."""
    few = gn.gradient_moments(model, losses, data, variance=True, **{**OPTIONS, **options})
    layers = {name: numbers(own.trace_cov, own.grad_sq_norm) for name, own in few.layers.items()}
    sizes = [own.size for own in few.layers.values()]
    return {
        "all": numbers(few.loss, few.trace_cov, few.grad_sq_norm, few.simple_noise_scale),
        "mean": whole(few.mean),
        "variance": whole(few.variance),
        **layers,
        "sizes": sizes,
    }


def by_engines(rank: int, size: int, options: Any) -> Numbers:
    """Engines that centre gradients, and those that give norms."""
    own, model = part_of(samples_of("mlp"), rank, size), model_of("mlp")
    return {
        engine: moments_of(model, own, engine=engine, micro_batch=7, **options)
        for engine in ("functional", "loop")
    }


def layer_by_layer(rank: int, size: int, options: Any) -> Numbers:
    """The gradients of sharded models, one layer gathered at a time; few samples and many."""
    found: Numbers = {}
    for way, kinds in LAYERED[size].items():
        many = [("mlp", 600)] if size == 2 else []
        for kind, count in [*((kind, COUNT) for kind in kinds), *many]:
            own = part_of(samples_of(kind, count), rank, size)
            model = held(model_of(kind), way, size)
            few: Any = {**options, "gather": "layers", "micro_batch": 64}
            found[f"{kind}, {count}, {way}"] = moments_of(model, own, **few)
    return found


def sharpness_of(model: nn.Module, loss_fn: Any, data: Any, **options: Any) -> Numbers:
    """λ after a few steps, which are the same ones."""
    found = gn.sharpness(model, loss_fn, data, max_iterations=4, **options)
    return {"estimate": numbers(found.estimate), "values": found.values}


def curvature_by_layers(rank: int, size: int, options: Any) -> Numbers:
    """λ of sharded models by differences of gradients, and of the smallest everything."""
    found: Numbers = {}
    for way, kinds in LAYERED[size].items():
        for kind in kinds if way == "whole" or size > 2 else ("gpt", "resnet"):
            own, model = part_of(samples_of(kind), rank, size), held(model_of(kind), way, size)
            measure = profiled if kind == "mlp" else sharpness_of
            few = {**about(kind, size), **options, "gather": "layers"}
            found[f"{kind}, {way}"] = measure(model, losses, own, **few)
    return found


def single_precision(rank: int, size: int, options: Any) -> Numbers:
    own = part_of(samples_of("gpt", dtype=torch.float32), rank, size)
    model = held(model_of("gpt", torch.float32), "blocks and root" if size > 1 else "plain", size)
    return profiled(model, losses, own, **options)


def numbers_of(rank: int, size: int, options: Any) -> Numbers:
    """Models in all ways that ranks hold them, and by layers; of three ranks one has no samples."""
    found: Numbers = {"held": everywhere(rank, size, options)}
    if size in LAYERED:
        found["layers"] = layer_by_layer(rank, size, options)
        found["curvature"] = curvature_by_layers(rank, size, options)
    if size == 3:
        found["engines"] = by_engines(rank, size, options)
        found["data"] = kinds_of_data(rank, size, options)
    return found


def measured(rank: int, size: int, options: Any) -> Numbers:
    """Every call, data of all kinds, random losses, single precision."""
    return {
        "calls": calls(model_of("mlp"), part_of(samples_of("mlp"), rank, size), **options),
        "data": kinds_of_data(rank, size, options),
        "random": random(rank, size, options),
        "float32": single_precision(rank, size, options),
    }


def tried(measure: Callable[[], Any]) -> str:
    """The error of a measurement, and that it came soon."""
    start = time.monotonic()
    try:
        measure()
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
    else:
        text = "nothing"
    return text if time.monotonic() - start < SOON else f"late: {text}"


class Unreadable(TensorDataset):
    def __getitem__(self, index: int) -> Any:
        raise OSError("the disk is gone")


def failures(rank: int, size: int, options: Any) -> Numbers:
    """What every rank says where one of them fails; after each, the same measurement works."""
    own, other = part_of(samples_of("mlp"), rank, size), rank > 0
    evaluated = [0]

    def raising(error: Exception, after: int) -> Callable[..., Tensor]:
        evaluated[0] = 0

        def loss_fn(model: nn.Module, batch: Any) -> Tensor:
            evaluated[0] += 1
            if other and evaluated[0] > after:
                raise error
            return losses(model, batch)

        return loss_fn

    def not_finite(model: nn.Module, batch: Any) -> Tensor:
        return losses(model, batch) * (float("nan") if other else 1.0)

    def measure(model: nn.Module, loss_fn: Any, data: Any, **more: Any) -> Callable[[], Any]:
        return lambda: profiled(model, loss_fn, data, **{**options, **more})

    drifted = model_of("mlp")
    if other:
        nn.init.zeros_(drifted.blocks[1].bias)  # type: ignore[union-attr]
    found: Numbers = {}
    for way in ("ddp", "blocks and root"):
        model = held(model_of("mlp"), way, size)
        wide = (own[0][:, : 9 if other else 10], own[1])
        out = torch.OutOfMemoryError("out of memory")
        cases: dict[str, Callable[[], Any]] = {
            "data of a wrong shape": measure(model, losses, wide),
            "not finite": measure(model, not_finite, own),
            "out of memory": measure(model, raising(out, 12), own),
            "raised in a pass": measure(model, raising(KeyError("x"), 30), own),
            "unreadable": measure(model, losses, (Unreadable if other else TensorDataset)(*own)),
            "other options": measure(model, losses, own, level=0.9 if other else 0.95),
            "other parameters": measure(drifted, losses, own),
            "other calls": lambda model=model: (gn.sharpness if other else gn.covariance)(
                model, losses, own, **options
            ),
        }
        for name, case in cases.items():
            text = tried(case)
            after = gn.gradient_moments(model, losses, own, **OPTIONS, **options).trace_cov
            found[f"{way}: {name}"] = text, float(after)
    return found


def training(rank: int, size: int, options: Any) -> Numbers:
    """The bits of trained parameters, with measurements in between and without."""
    return {
        f"{kind}, {way}": [trained(kind, way, rank, size, asked) for asked in (None, options)]
        for kind, way in TRAINED[size]
    }


LEFT = (  # as they were found, after measurements in between
    ("mlp", "ddp"),
    ("gpt", "blocks and root"),
    ("gpt", "tensor parallel"),
    ("resnet", "whole"),
    ("mlp", "blocks"),
    ("mlp", "mixed precision"),
)


TRAINED = {2: LEFT, 4: (("mlp", "both"),)}


def trained(kind: str, way: str, rank: int, size: int, options: Any) -> list[Tensor]:
    """Three steps; measured before the first, after a backward pass, and after a step."""
    model, samples = held(model_of(kind), way, size), samples_of(kind)
    own = samples if way == "tensor parallel" else part_of(samples, rank, size)
    if way == "both":
        own = part_of(samples, rank // 2, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)

    def look(measure: Any = profiled, **more: Any) -> None:
        if options is not None:
            measure(model, losses, own, **options, **more)
            if way in ("whole", "blocks and root"):
                gn.gradient_moments(model, losses, own, gather="layers", **options)

    look()
    for step in range(3):
        optimizer.zero_grad()
        losses(model, own).mean().backward()
        if step == 1:
            look(gn.gradient_moments)
        optimizer.step()
        if step == 1:
            look(optimizer=optimizer)
    parts = [p.detach() for p in model.parameters()]
    parts += [own["exp_avg_sq"] for own in optimizer.state.values()]
    return [own.to_local() if isinstance(own, DTensor) else own for own in parts]


class Stream(IterableDataset[Any]):
    def __init__(self, *rows: Tensor) -> None:
        self.rows = rows

    def __iter__(self) -> Iterator[Any]:
        return zip(*self.rows, strict=True)


class Masked(TensorDataset):
    """Whose first, middle and last entries are blank, and the same on all ranks."""

    def __getitem__(self, index: int) -> Any:
        row, last = super().__getitem__(index), len(self) - 1
        return tuple(map(torch.zeros_like, row)) if index in (0, last // 2, last) else row


def drawn(rank: int, size: int, options: Any) -> Numbers:
    """How many samples are measured of how many, and the loss; data of all kinds on all ranks."""
    samples, model = samples_of("mlp"), model_of("mlp")
    own, none = part_of(samples, rank, size), tuple(rows[:0] for rows in samples)
    loader = DataLoader(TensorDataset(*own), 4 + rank)
    normal = nn.Sequential(nn.Linear(10, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)).double()
    normal.load_state_dict({k: v + 0.1 for k, v in normal.state_dict().items()})
    for parameter in normal.parameters():
        nn.init.constant_(parameter, 0.1)

    def of(data: Any, model: nn.Module = model, **more: Any) -> tuple[Any, ...]:
        found = gn.profile(model, losses, data, accuracy=1.0, tol=0.1, **options, **more)
        cost = found.cost.passes, found.warnings
        return found.samples, found.population, float(found.loss), found.batch_size, cost

    return {
        "loader and nothing": of(loader if not rank else []),
        "loader and batch": of(loader if rank else own),
        "list and data set": of([own] if rank else TensorDataset(*own)),
        "batch sizes": of(loader),
        "stream on all": of(Stream(*samples), max_samples=31),
        "streams": of(Stream(*own), max_samples=30),
        "nearly the same": of(Masked(*(rows[:20] for rows in own))),
        "the same": of(samples, max_samples=31),
        "groups of the same": of(samples, normal, group_size=4, max_samples=32),
        "groups of uneven parts": of(
            tuple(rows[:33] if not rank else rows[33:] for rows in samples),
            normal, group_size=4, max_samples=20,
        ),
        "one group on a rank": of(
            tuple(rows[:36] if not rank else rows[36:40] for rows in samples), normal, group_size=4
        ),
        "nothing on a rank": of(samples if rank else none, normal, group_size=4),
        "few": of(samples if rank else none, max_samples=2),
    }  # fmt: skip


def drifted(rank: int, size: int, options: Any) -> Numbers:
    """What is said where the ranks do not have the same."""
    own, criterion = part_of(samples_of("mlp"), rank, size), nn.CrossEntropyLoss()
    weight = torch.tensor([1.0, 2.0, 1.0 + rank]).double()
    normal = nn.Sequential(nn.Linear(10, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)).double()
    for parameter in normal.parameters():
        nn.init.constant_(parameter, 0.1)
    normal[1].running_mean.add_(rank)
    model, frozen, adam = model_of("mlp"), model_of("mlp"), model_of("mlp")
    frozen.blocks[0].weight.requires_grad_(not rank)  # type: ignore[union-attr]
    optimizer = torch.optim.AdamW(adam.parameters(), lr=0.0)
    losses(adam, own).mean().backward()
    optimizer.step()
    measured = gn.measure(model, losses, own, **options)
    hessian = gn.Hessian(model, losses, own, **options)
    measured.moments()
    size_of = sum(p.numel() for p in model.parameters())

    def changed() -> Any:
        with torch.no_grad():
            model.blocks[0].bias.add_(rank)  # type: ignore[union-attr]
        return measured.moments()

    def moments(model: nn.Module, loss_fn: Any = criterion, **more: Any) -> Callable[[], Any]:
        return lambda: gn.gradient_moments(model, loss_fn, own, **options, **more)

    return {
        "buffers": tried(moments(normal.eval())),
        "buffers that are not used": tried(moments(normal.train(), group_size=4)),
        "modes": tried(moments(model_of("mlp").train(not rank))),
        "frozen": tried(moments(frozen)),
        "criterion": tried(moments(model_of("mlp"), nn.CrossEntropyLoss(weight))),
        "optimizer": tried(moments(adam, optimizer=optimizer)),
        "optimizer on one rank": tried(moments(adam, optimizer=optimizer if rank else None)),
        "options": tried(moments(adam, level=2.0 if rank else 0.95)),
        "vectors": tried(lambda: hessian @ torch.full((size_of,), 1.0 + rank).double()),
        "later": tried(changed),
    }


def stops(rank: int, size: int, options: Any) -> Numbers:
    """Errors at several places, of one rank or of both at once, and of other kinds."""
    own, seen = part_of(samples_of("mlp"), rank, size), [0]

    def raising(error: BaseException | None, after: int) -> Callable[..., Tensor]:
        seen[0] = 0

        def loss_fn(model: nn.Module, batch: Any) -> Tensor:
            seen[0] += 1
            if error is not None and seen[0] == after:
                raise error
            return losses(model, batch)

        return loss_fn

    def once(model: nn.Module, batch: Any) -> Tensor:
        found = losses(model, batch)
        if not rank:
            return found
        ones = torch.ones(len(found), dtype=torch.long)
        logits = F.log_softmax(model(batch[0]), 1)[None].expand(2, -1, -1)
        return found + F.ctc_loss(logits, ones[:, None], 2 * ones, ones, reduction="none")

    def measure(loss_fn: Any) -> str:
        return tried(lambda: profiled(model_of("mlp"), loss_fn, own, **options))

    found: Numbers = {}
    for after in (1, 5, 12, 30, 55):
        errors = (gn.CurvatureError("no"), KeyError("x"))
        found[f"both at {after}"] = measure(raising(errors[rank], after))
        found[f"of a kind of ours at {after}"] = measure(
            raising(FullPrecisionError("no") if rank else None, after)
        )
    try:
        gn.gradient_moments(
            model_of("mlp"), raising(KeyboardInterrupt() if rank else None, 8), own, **options
        )
    except BaseException as error:
        found["interrupted"] = type(error).__name__
    total = torch.ones(3)
    dist.all_reduce(total)
    found["the group is as it was"] = total.tolist()
    found["once"] = gn.Hessian(model_of("mlp"), once, own, **options).hvp
    found["after"] = profiled(model_of("mlp"), losses, own, **options)["trace_cov"][0]
    return found


def stepped(optimizer: torch.optim.Optimizer, model: nn.Module, data: Any) -> Any:
    """The optimizer after a step."""
    losses(model, data).mean().backward()
    optimizer.step()
    optimizer.zero_grad()
    return optimizer


def by_columns(model: Any) -> nn.Module:
    """Sharded, the first weight along its second dimension, and whole between passes."""
    wide = model.blocks[0].weight
    for part in [*model.blocks, model]:
        fully_shard(
            part, reshard_after_forward=False,
            shard_placement_fn=lambda p: Shard(1) if p is wide else None,
        )  # fmt: skip
    return model


@mock.patch.object(random_numbers, "BLOCK", 64)
def vectors(rank: int, size: int, options: Any) -> Numbers:
    """Vectors of which each rank has a part, and what is computed from products with them."""
    samples, layers = samples_of("mlp"), {**options, "gather": "layers"}
    own, model = part_of(samples, rank, size), by_columns(model_of("mlp"))
    hessian = gn.Hessian(model, losses, own, **layers)
    alone = gn.Hessian(model_of("mlp"), losses, samples)
    mean = gn.gradient_moments(model, losses, own, **layers).mean
    space = hessian.space
    drawn = space.random(torch.Generator().manual_seed(3))
    plain = {name: own.full_tensor() for name, own in mean.items()}
    rows = space.orthonormal([drawn, 2 * drawn, hessian @ drawn])
    row = space.largest_local_size * 8
    found: Numbers = {
        "drawn": whole(space.named(drawn)),
        "drawn alone": alone.space.random(torch.Generator().manual_seed(3)),
        "product": whole(hessian @ mean),
        "product of plain tensors": whole(hessian @ plain),
        "product of the model by dicts": whole(gn.Hessian(model, losses, own, **options) @ mean),
        "product alone": alone @ torch.cat([own.flatten() for own in plain.values()]),
        "overlaps": space.over(rows @ rows.T).flatten(),
        "width": [space.local_size, space.largest_local_size],
        "density": [gn.SpectralDensity.of(hessian, probes=1, steps=6).upper_edge],
        "density alone": [gn.SpectralDensity.of(alone, probes=1, steps=6).upper_edge],
    }
    for name, more in (
        ("both ends", {"k": 2, "which": "BE"}),
        ("restarted", {"memory_budget": 6 * row}),
        ("from a start", {"v0": hessian @ drawn}),
    ):
        pairs = gn.lanczos(hessian, tol=TOL, **more)
        found[name] = [*pairs.values.tolist(), pairs.matvecs]
        back = hessian @ pairs.vectors - pairs.vectors * pairs.values
        found[f"{name}, residuals"] = space.over(back.square().sum(0)).sqrt()
    pairs = gn.lanczos(alone, k=2, which="BE", tol=TOL)
    found["both ends alone"] = [*pairs.values.tolist(), pairs.matvecs]
    adam = stepped(torch.optim.AdamW(model.parameters(), lr=0.01), model, own)
    for gather in ("layers", "model"):
        same = {**options, "gather": gather, "optimizer": adam}
        found[f"metric by {gather}"] = profiled(model, losses, own, **same)
        matrix = gn.Hessian(model, losses, own, gather=gather, **options)
        found[f"preconditioned by {gather}"] = gn.lanczos(
            gn.Preconditioned(matrix, adam), tol=TOL
        ).values
    with mock.patch.object(gathering, "memory_of", return_value=1e4):
        found["too large"] = gn.Hessian(model, losses, own, **options).reason
        # the other ranks have room
        with mock.patch.object(gathering, "memory_of", return_value=1e4 if rank else 1e9):
            found["too large on one"] = gn.Hessian(model, losses, own, **options).reason
        found["too large, and kept"] = gn.Hessian(model, losses, own, hvp="kept", **options).reason
        dropping = fully_shard(nn.Sequential(model_of("mlp"), nn.Dropout(0.5)))
        found["too large, and dropout"] = tried(
            lambda: gn.gradient_moments(dropping, losses, own, **options)
        )
    found["fits"] = gn.Hessian(model, losses, own, **options).reason
    casting = held(model_of("mlp"), "mixed precision", size)
    torch.manual_seed(0)
    rectified = by_columns(MLP())
    single = part_of(samples_of("mlp", dtype=torch.float32), rank, size)
    rectified.blocks[0].register_forward_hook(lambda *seen: 4 * seen[2].relu())
    slower = torch.optim.AdamW(model.parameters(), lr=0.001)
    settings = slower.state_dict()["param_groups"]
    slower.load_state_dict({**adam.state_dict(), "param_groups": settings})
    before = [p.to_local().clone() for p in model.parameters()]
    asked: dict[str, Callable[[], Any]] = {
        "kept": lambda: gn.Hessian(model, losses, own, hvp="kept", **layers),
        "gauss-newton": lambda: gn.sharpness(model, losses, own, operator="gauss-newton", **layers),
        "block": lambda: hessian.restrict(["blocks.0"]),
        "SciPy": lambda: hessian.to_scipy(),
        "trace": lambda: gn.trace(hessian),
        "short": lambda: hessian @ torch.zeros(227),
        "budget": lambda: gn.lanczos(hessian, memory_budget=4 * row),
        "short on one": lambda: hessian @ torch.zeros(space.local_size + rank).double(),
        "kinks": lambda: gn.Hessian(rectified, losses, single, **layers) @ drawn,
        "casts": lambda: gn.sharpness(casting, losses, own, **layers),
        "other rates": lambda: gn.sharpness(
            model, losses, own, optimizer=adam if rank else slower, **layers
        ),
    }
    found |= {name: tried(ask) for name, ask in asked.items()}
    now = [p.to_local() for p in model.parameters()]
    found["left as found"] = all(map(torch.equal, before, now))
    return found


def alone(rank: int, size: int, options: Any) -> Numbers:
    """A rank that fails before FSDP's own exchange, in which the other waits for it."""
    own, model = part_of(samples_of("mlp"), rank, size), held(model_of("mlp"), "whole", size)
    fails = False

    def no_label(model: nn.Module, batch: Any) -> Tensor:
        if fails and rank:
            raise KeyError("a label")
        return losses(model, batch)

    hessian = gn.Hessian(model, no_label, own, gather="layers", **options)
    fails = True
    with mock.patch.object(ranks, "PATIENCE", 1.0):
        return {"product": hessian @ torch.ones(hessian.space.local_size)}


class Worded(nn.Module):
    """A language model that tells its own loss, which gn.causal_lm compares."""

    def __init__(self, output: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words, self.inside, self.last = nn.Embedding(5, 4), nn.Linear(4, 4), nn.Linear(4, 5)
        self.output = output

    def forward(self, input_ids: Tensor, labels: Tensor | None = None) -> Any:
        logits, loss = self.last(torch.tanh(self.inside(self.words(input_ids)))), None
        if labels is not None:
            loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        return self.output(loss=loss, logits=logits)


class Told(dict[str, Any]):
    """What a model returns, as in transformers."""

    def __getattr__(self, name: str) -> Any:
        return self[name]


class Recurrent(nn.Module):
    """LSTMs keep a list of their parameters beside the registered ones."""

    def __init__(self) -> None:
        super().__init__()
        self.inside, self.last = nn.LSTM(4, 5, batch_first=True), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.inside(x)[0][:, -1])


class InOrder(nn.Module):
    """Layers that are used as the data have it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Linear(10, 10), nn.Linear(10, 10)

    def forward(self, x: Tensor, order: str) -> Tensor:
        for name in order:
            x = torch.tanh(getattr(self, name)(x))
        return x


def sharded(rank: int, size: int, options: Any) -> Numbers:
    """What needs whole parameters, and what is then done."""
    own, layers = part_of(samples_of("mlp"), rank, size), {**options, "gather": "layers"}
    model = held(model_of("mlp"), "blocks and root", size)
    dropping = nn.Sequential(model_of("mlp"), nn.Dropout(0.5))
    fully_shard(dropping)
    weighted = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 0.5]).double())
    adam = stepped(torch.optim.Adam(model.parameters(), weight_decay=0.1), model, own)
    apart = nn.ModuleDict({"inside": fully_shard(nn.Linear(10, 3)), "outside": nn.Linear(10, 3)})
    apart.double()

    def outside(model: Any, batch: Any) -> Tensor:
        return losses(model["inside"], batch) + losses(model["outside"], batch)

    def not_finite(model: nn.Module, batch: Any) -> Tensor:
        return losses(model, batch) * (float("nan") if rank else 1.0)

    def in_another_order(model: Any, batch: Any) -> Tensor:
        inputs, labels = batch
        return F.cross_entropy(model(inputs, "ab" if rank else "ba"), labels, reduction="none")

    def by_length(model: Any, batch: Any) -> Tensor:
        found = model(batch[0], "a" * batch[0].shape[1] + "b").mean(1)
        return F.cross_entropy(found, batch[1], reduction="none")

    pair = fully_shard(InOrder().double())
    waiting = held(model_of("mlp"), "whole", size)
    waiting.set_requires_gradient_sync(False)
    losses(waiting, own).mean().backward()
    lengths = [(own[0][:6, None], own[1][:6]), (own[0][6:11, None].repeat(1, 2, 1), own[1][6:11])]
    found: Numbers = {}
    asked: dict[str, tuple[Any, Any, Any]] = {
        "dropout": (dropping, losses, {}),
        "weights": (model, weighted, {}),
        "decay in the gradients": (model, losses, {"optimizer": adam, "metric": "optimizer"}),
        "engine": (model, losses, {"engine": "loop"}),
        "not of fully_shard": (model_of("mlp"), losses, {}),
        "outside": (apart, outside, {}),
        "no group": (model, losses, {"process_group": None}),
        "not finite": (model, not_finite, {}),
        "in another order": (pair, in_another_order, {}),
        "by length": (pair, by_length, {"data": lengths}),
        "waiting gradients": (waiting, losses, {}),
        "smoothing": (model, nn.CrossEntropyLoss(label_smoothing=0.1 * rank), {}),
    }
    for name, (sample_model, loss_fn, more) in asked.items():
        found[name] = tried(
            lambda m=sample_model, f=loss_fn, more=more: gn.gradient_moments(
                m, f, **{"data": own, **layers, **more}
            )
        )
    by_layers = gn.gradient_moments(model, losses, own, **layers)
    by_model = gn.gradient_moments(model, losses, own, gather="model", **options)
    gap = (whole(by_layers.mean) - whole(by_model.mean)).abs().max()
    found["alike"] = bool(gap < 1e-12) and str(by_layers) == str(by_model)
    torch.manual_seed(0)
    recurrent = Recurrent().double()
    alone = gn.gradient_moments(recurrent, losses, samples_of("sequence"))
    own = part_of(samples_of("sequence"), rank, size)
    together = gn.gradient_moments(fully_shard(recurrent), losses, own, **options)
    found["recurrent"] = [float(alone.trace_cov), float(together.trace_cov)]
    tokens = torch.randint(5, (size, 4, 6), generator=torch.Generator().manual_seed(0))
    worded = Worded(Told).double()
    fully_shard(worded.inside)
    batch = {"input_ids": tokens[rank], "labels": tokens[rank]}
    few = gn.gradient_moments(fully_shard(worded), gn.causal_lm(), [batch], **layers)
    every = {"input_ids": tokens.flatten(0, 1), "labels": tokens.flatten(0, 1)}
    told = gn.gradient_moments(Worded(Told).double(), gn.causal_lm(), [every])
    opaque = Worded(SimpleNamespace).double()
    fully_shard(opaque.inside)
    fully_shard(opaque)
    found["opaque"] = tried(lambda: gn.gradient_moments(opaque, gn.causal_lm(), [batch], **layers))
    found["own loss"] = [float(few.trace_cov), float(told.trace_cov)]
    found["merged"] = tried(lambda: by_layers.merge(by_layers))
    parts = [t.to_local() if isinstance(t, DTensor) else t for t in by_layers.mean.values()]
    found["parts"] = sum(t.numel() for t in parts) / len(whole(by_layers.mean))
    return found


class ByHand(nn.Module):
    """Attention whose code divides its heads among so many ranks, as it was written for."""

    def __init__(self, ranks: int) -> None:
        super().__init__()
        self.ranks, self.read, self.written = ranks, nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        heads = self.read(x).view(len(x), 4 // self.ranks, -1)
        return self.written(torch.softmax(heads, -1).flatten(1))


def meshes(rank: int, size: int, options: Any) -> Numbers:
    """Models on meshes of all names, and what a report says of casts that are left out."""
    own, found = part_of(samples_of("mlp"), rank, size), dict[str, Any]()
    for name in ("cp", "ep", "pp", "dp"):
        mesh = init_device_mesh("cpu", (size,), mesh_dim_names=(name,))
        model = fully_shard(model_of("mlp"), mesh=mesh)
        found[name] = tried(lambda m=model: gn.sharpness(m, losses, own, **options))
    mesh = init_device_mesh("cpu", (size,), mesh_dim_names=("tp",))
    for name, count in (("by hand", size), ("by the tensor", 1)):
        torch.manual_seed(0)
        plan = {"read": ColwiseParallel(), "written": RowwiseParallel()}
        model = parallelize_module(ByHand(count), mesh, plan)
        if count == 1:  # heads of parts are those of the whole
            model = parallelize_module(MLP(), mesh, {"blocks.0": plan["read"]})
            parallelize_module(model, mesh, {"blocks.1": plan["written"]})
        batch = torch.randn(12, 8 if count > 1 else 10), torch.arange(12) % 3
        batch = (torch.linspace(-1, 1, batch[0].numel()).view_as(batch[0]), batch[1])
        found[name] = tried(
            lambda m=model, b=batch: gn.gradient_moments(m, nn.CrossEntropyLoss(), b, **options)
        )
    for name, way in (("casts", "mixed precision"), ("plain", "whole")):
        profile = gn.profile(held(model_of("mlp"), way, size), losses, own, **options)
        found[name] = " ".join(text for text in profile.warnings if "fully_shard" in text)
    return found


PROGRAMS: dict[str, Callable[[int, int, Any], Numbers]] = {
    "numbers": numbers_of,
    "measured": measured,
    "failures": failures,
    "training": training,
    "drawn": drawn,
    "drifted": drifted,
    "stops": stops,
    "sharded": sharded,
    "meshes": meshes,
    "vectors": vectors,
    "alone": alone,
}


def main(folder: str, *names: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank, size = dist.get_rank(), dist.get_world_size()
    try:
        for name in names:
            found = PROGRAMS[name](rank, size, {"process_group": dist.group.WORLD})
            torch.save(found, Path(folder) / f"{name} {rank}.pt")
    finally:
        gc.collect()  # torch aborts at exit where something still holds the group
        dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
