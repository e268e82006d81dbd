"""The model's own loss, to which the helpers for language models are held."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ...errors import LossError, is_out_of_memory
from ...tensors.trees import Batch, map_samples, sample_leaves
from ..state.guard import seed_everything, untouched
from .call import takes
from .loss_fn import in_transform
from .tokens import IGNORED, READINGS, Reading

SEQUENCES = 4  # are enough: another reading differs in every token
SAME = 1e-4  # relative; cross-entropies of the same logits in float32 differ by 1e-6

_HELD: WeakKeyDictionary[nn.Module, set[str]] = WeakKeyDictionary()


def hold(reading: Reading, model: nn.Module, batch: Batch) -> None:
    """Hold a helper to the model's own loss on a few sequences, once per model.

    The losses of all tokens, averaged, have to be the `loss` that the model returns when it is
    given the labels. Models that do not take labels or return no loss are let through, as are those
    that draw noise which no seed repeats.

    Raises:
        LossError: they differ; the message names the helper that agrees, if there is one.
    """
    held = _HELD.setdefault(model, set())
    if reading.name in held or not _can_be_looked_at(model, batch):
        return
    few = _few(reading, batch)
    if few is None:
        return
    with untouched(model), torch.no_grad():
        _compare(reading, model, few)
    held.add(reading.name)


def _can_be_looked_at(model: nn.Module, batch: Batch) -> bool:
    tensors = [*model.parameters(), *sample_leaves(batch)]
    return not (torch.compiler.is_compiling() or any(map(in_transform, tensors)))


def _few(reading: Reading, batch: Batch) -> dict[str, Any] | None:
    """Sequences with tokens that count, and their labels; None where there are none."""
    labels = reading.labels(batch)
    rows = (labels != IGNORED).any(1).nonzero().flatten()[:SEQUENCES]
    if not len(rows):
        return None
    own = map_samples(lambda leaf: leaf[rows] if len(leaf) == len(labels) else leaf, dict(batch))
    return {**own, "labels": labels[rows]}


def _compare(reading: Reading, model: nn.Module, few: dict[str, Any]) -> None:
    own = _own_loss(model, few)
    if own is None:
        return
    ours = _mean(reading, model, few)
    if _agree(ours, own, SAME):
        return
    for other in READINGS:
        if other is not reading and _agree(_mean(other, model, few), own, SAME):
            raise LossError(
                f"gn.{reading.name}() {_given(ours)} on the first sequences, where the model's "
                f"own loss is {own:.6g}. gn.{other.name}() gives that: use it."
            )
    rounded = _agree(ours, own, 4 * _resolution(model))  # the model's own, in half precision
    if math.isnan(ours) or rounded or _own_loss(model, few) != own:
        return  # what failed tells why when it is called; noise that no seed repeats
    raise LossError(
        f"gn.{reading.name}() gives {ours:.6g} on the first sequences, where the model's own loss "
        f"is {own:.6g}: that has other terms (an auxiliary loss, label smoothing) or another "
        f"mean. Use gn.model_loss() to measure it as it is, or write a loss_fn(model, batch) that "
        f"returns one loss per sequence, shape (n,), if you train on something else."
    )


def _given(mean: float) -> str:
    return "gives nothing" if math.isnan(mean) else f"gives {mean:.6g}"


def _agree(first: float, second: float, tolerance: float) -> bool:
    return abs(first - second) <= tolerance * abs(second) + 1e-6


def _mean(reading: Reading, model: nn.Module, few: dict[str, Any]) -> float:
    """The mean over tokens as a helper reads it; nan where it cannot."""
    seed_everything(0)
    try:
        sums, counts = reading.sums(model, few)
    except Exception as error:  # the user's model, called in ways that need not be meant for it
        if is_out_of_memory(error):
            raise
        return math.nan
    return float(sums.sum() / counts.sum())


def _own_loss(model: nn.Module, few: dict[str, Any]) -> float | None:
    """What the model says that its loss is; None where it says nothing."""
    if not takes(model, **few):
        return None
    seed_everything(0)
    try:
        with _Float32():
            output = model(**few)
    except Exception as error:  # the user's model, which need not take labels
        if is_out_of_memory(error):
            raise
        return None
    loss = output.get("loss") if isinstance(output, Mapping) else getattr(output, "loss", None)
    return float(loss) if isinstance(loss, Tensor) and loss.numel() == 1 else None


class _Float32(TorchFunctionMode):
    """Cross-entropies of half precision are taken in float32, as the helpers take them."""

    def __torch_function__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is nn.functional.cross_entropy and args[0].itemsize < 4:
            args = (args[0].float(), *args[1:])
        return func(*args, **(kwargs or {}))


def _resolution(model: nn.Module) -> float:
    dtypes = {p.dtype for p in model.parameters() if p.is_floating_point()}
    return max((torch.finfo(dtype).eps for dtype in dtypes), default=0.0)
