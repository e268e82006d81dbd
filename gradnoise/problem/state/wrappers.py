"""Models, optimizers and loaders as frameworks hand them out, and what is inside of them.

accelerate, Lightning, Fabric, transformers' Trainer and torch itself put their own objects around
the user's. They are known by their attributes, so that none of these packages is imported.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sized
from contextlib import AbstractContextManager, nullcontext
from numbers import Integral
from typing import Any

import torch
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, RandomSampler
from torch.utils.data.distributed import DistributedSampler

# the attribute that holds the wrapped model, by the name of the wrapper's class
MODELS = {
    "DistributedDataParallel": "module",
    "DataParallel": "module",
    "AveragedModel": "module",
    "OptimizedModule": "_orig_mod",  # of torch.compile
    "_FabricModule": "_forward_module",
}
OWN_FORWARD = ("DistributedDataParallel", "DataParallel")  # across processes or devices
LOADERS = ("base_dataloader", "_dataloader")  # accelerate's; Fabric's


def bare_optimizer(optimizer: Any) -> Any:
    """The torch optimizer inside of wrappers and learning-rate schedulers.

    Anything without an `optimizer` of its own is returned as it is.
    """
    optimizer = getattr(optimizer, "scheduler", optimizer)  # accelerate wraps these as well
    while hasattr(inner := getattr(optimizer, "optimizer", None), "param_groups"):
        optimizer = inner
    return optimizer


def bare_model(model: Any) -> Any:
    """The user's module inside of the outermost wrappers; anything else as it is."""
    while isinstance(model, nn.Module):
        name = _wrapped_at(model)
        if name is None:
            return model
        model = getattr(model, name)
    return model


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that require a gradient, by their names in the bare model."""
    return {name: p for name, p in bare_model(model).named_parameters() if p.requires_grad}


def _wrapped_at(module: nn.Module) -> str | None:
    """The attribute that holds the wrapped module; None where this is no wrapper."""
    known = (MODELS.get(kind.__name__) for kind in type(module).__mro__)
    name = next((name for name in known if name), None)
    return name if name and isinstance(getattr(module, name, None), nn.Module) else None


def bare_data(data: Any) -> Any:
    """The torch DataLoader inside of wrappers, with a batch size where it has one.

    A data set of Hugging Face that has no format gives tensors. Anything else as it is.
    """
    while (inner := _inner_loader(data)) is not None:
        data = inner
    if isinstance(data, DataLoader):
        return _with_batch_size(data)
    return data.with_format("torch") if _is_unformatted(data) else data


def _is_unformatted(data: Any) -> bool:
    """Whether it is a data set of Hugging Face, or a stream, that gives plain Python objects."""
    told = getattr(data, "format", None)
    if isinstance(told, dict):
        return told.get("type", "") is None and hasattr(data, "with_format")
    return getattr(data, "_formatting", told) is None and hasattr(data, "with_format")


def _inner_loader(data: Any) -> Any:
    own = getattr(data, "__dict__", {})  # wrappers pass other attributes on
    return next((own[name] for name in LOADERS if isinstance(own.get(name), DataLoader)), None)


def _with_batch_size(loader: DataLoader[Any]) -> DataLoader[Any]:
    """The same loader made from `batch_size` and `sampler`, where it has a BatchSampler.

    torchdata's samplers are classes of its own that do the same, and have the same names.
    """
    batches: Any = loader.batch_sampler
    own = isinstance(batches, BatchSampler) and type(batches).__name__ == BatchSampler.__name__
    if not own or (loader.batch_size is not None and type(batches) is BatchSampler):
        return loader
    return DataLoader(
        loader.dataset,
        batch_size=batches.batch_size,
        sampler=_sampler(batches.sampler),
        drop_last=batches.drop_last,
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        worker_init_fn=loader.worker_init_fn,
        generator=loader.generator,
    )


def _sampler(sampler: Any) -> Any:
    """torch's own RandomSampler for one of its name."""
    if type(sampler).__name__ != RandomSampler.__name__ or isinstance(sampler, RandomSampler):
        return sampler
    return RandomSampler(sampler.data_source, sampler.replacement, sampler.num_samples)


def batch_size_of(data: Any, sets: int = 1) -> int | None:
    """B of a loader, over all processes; None where it is not known.

    Args:
        data: the user's.
        sets: how many different parts of the data the processes have, where no sampler tells.
    """
    loader = bare_data(data)
    sampler = getattr(loader, "sampler", None)
    ranks = sampler.num_replicas if isinstance(sampler, DistributedSampler) else sets
    for size, times in (
        (getattr(data, "total_batch_size", None), 1),  # accelerate's
        (getattr(loader, "batch_size", None), ranks),
    ):
        if isinstance(size, Integral) and not isinstance(size, bool):
            return int(size) * times
    return None


def length_of(data: Any) -> float:
    """How many samples a stream says it has; inf where it does not."""
    dataset = data.dataset if isinstance(data, DataLoader) else data
    told = isinstance(dataset, IterableDataset) and isinstance(dataset, Sized)
    try:
        return float(len(dataset)) if told else float("inf")  # type: ignore[arg-type]
    except TypeError:  # a `__len__` that has nothing to tell
        return float("inf")


def see_through(modules: Iterable[nn.Module]) -> None:
    """Parallel models run in this process alone, and Fabric's let others differentiate.

    A parallel model would wait for other processes, or copy itself to other devices. Fabric would
    insist on its own `backward`. The attributes that are set here are put back by `attributes`,
    inside of which this is used.
    """
    for module in modules:
        kinds = {kind.__name__ for kind in type(module).__mro__}
        if not kinds.isdisjoint(OWN_FORWARD) and "forward" not in vars(module):
            vars(module)["forward"] = module.module
        if "_FabricModule" in kinds:
            vars(module)["_register_backward_hook"] = lambda output: output


def is_compiled(model: nn.Module) -> bool:
    """Whether the model or a part of it is compiled, by `torch.compile` or `.compile()`."""
    return any(
        "OptimizedModule" in {kind.__name__ for kind in type(module).__mro__}
        or getattr(module, "_compiled_call_impl", None) is not None
        for module in model.modules()
    )


def eager() -> AbstractContextManager[Any]:
    """Compiled models and functions run their original code.

    What was compiled has no second derivatives, and its operations cannot be followed.
    """
    if "torch._dynamo" not in sys.modules:  # nothing was compiled
        return nullcontext()
    stance = getattr(torch.compiler, "set_stance", None)
    return nullcontext() if stance is None else stance("force_eager")
