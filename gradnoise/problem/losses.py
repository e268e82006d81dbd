"""Per-sample losses from a torch criterion or a language model."""

from __future__ import annotations

import copy
import functools
import inspect
import math
import numbers
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ArgumentError, LossError
from ..tensors.trees import Batch
from .guard import untouched

LossFn = Callable[[nn.Module, Batch], Tensor]
IGNORED = -100


def supervised(criterion: Callable[..., Tensor]) -> LossFn:
    """Per-sample losses of a torch criterion on batches `(inputs, targets)`.

    ℓ_i = reduction over sample i's own remaining dimensions of criterion(model(inputs), targets),
    where `reduction="mean"` averages, `"sum"` adds, and `KLDivLoss`'s `"batchmean"` adds.
    Positions with `CrossEntropyLoss`'s or `NLLLoss`'s `ignore_index` do not count in the mean.

    Args:
        criterion: a torch loss module such as `nn.CrossEntropyLoss()`, or a function of
            `(outputs, targets, reduction=...)` such as `F.mse_loss` (averaged).

    Returns:
        `loss_fn(model, batch)` with one loss per sample, shape (n,).

    Raises:
        LossError: class weights with `reduction="mean"`, where torch divides by the weights of
            the whole batch, so that a sample's share of the loss depends on the other samples;
            `reduction="none"` with several losses per sample; a batch that is no pair.

    Example:
        >>> loss_fn = supervised(nn.MSELoss())
        >>> loss_fn(nn.Identity(), (torch.tensor([[1.0, 3.0]]), torch.zeros(1, 2)))
        tensor([5.])
    """
    reduction = getattr(criterion, "reduction", "mean")
    class_weights = getattr(criterion, "weight", None) is not None
    if class_weights and reduction == "mean" and isinstance(criterion, _CLASS_LOSSES):
        raise LossError(
            f"{type(criterion).__name__}(weight=..., reduction='mean') divides by the class "
            f"weights of the whole batch, so one sample changes the loss of another. Use "
            f"reduction='sum' to measure the mean of weight[y_i]·loss_i over the samples, or "
            f"write a loss_fn(model, batch) that returns one loss per sample."
        )
    unreduced = _unreduced(criterion)
    ignored = _ignore_index(criterion)

    def loss_fn(model: nn.Module, batch: Batch) -> Tensor:
        inputs, targets = _pair(batch)
        outputs = _predictions(model(inputs))
        losses = unreduced(outputs, targets)
        _check_broadcast(outputs, targets, losses)
        counted = None if ignored is None else _counted(losses, targets, ignored)
        return _over_own_dimensions(losses, reduction, counted)

    return loss_fn


_CLASS_LOSSES = (nn.CrossEntropyLoss, nn.NLLLoss)


def _unreduced(criterion: Callable[..., Tensor]) -> Callable[..., Tensor]:
    if not isinstance(criterion, nn.Module):
        return functools.partial(criterion, reduction="none")
    if not hasattr(criterion, "reduction"):
        raise LossError(
            f"{type(criterion).__name__} has no `reduction`, so its per-sample losses cannot be "
            f"read. Write a loss_fn(model, batch) that returns one loss per sample, shape (n,)."
        )
    twin = copy.copy(criterion)
    twin.reduction = "none"  # type: ignore[assignment]
    return twin


def _ignore_index(criterion: Callable[..., Tensor]) -> int | None:
    if isinstance(criterion, nn.Module):
        return getattr(criterion, "ignore_index", None)
    given = inspect.signature(criterion).parameters.get("ignore_index")
    return None if given is None else given.default


def _predictions(outputs: Any) -> Tensor:
    """What a criterion compares: a tensor, or the `logits` of a Hugging Face output."""
    outputs = getattr(outputs, "logits", outputs)
    if not isinstance(outputs, Tensor):
        raise LossError(
            f"a criterion needs a model that returns a tensor; this one returned "
            f"{type(outputs).__name__}. Write a loss_fn(model, batch) that picks what it needs and "
            f"returns one loss per sample, shape (n,)."
        )
    return outputs


def _check_broadcast(outputs: Tensor, targets: Any, losses: Tensor) -> None:
    """Outputs (n, 1) against targets (n,) broadcast to (n, n), which is a mistake."""
    if isinstance(targets, Tensor) and losses.ndim > 1 and outputs.ndim != targets.ndim:
        if losses.shape == targets.shape:  # class indices of sequences or images
            return
        raise LossError(
            f"outputs of shape {tuple(outputs.shape)} and targets of shape {tuple(targets.shape)} "
            f"broadcast to {tuple(losses.shape)}; give them the same shape, for example with "
            f"targets[:, None] or outputs.squeeze(1)"
        )


def _pair(batch: Batch) -> tuple[Any, Any]:
    if isinstance(batch, (tuple, list)) and len(batch) == 2:
        return batch[0], batch[1]
    size = f" of {len(batch)}" if isinstance(batch, (tuple, list, Mapping)) else ""
    raise LossError(
        f"a criterion needs batches (inputs, targets); got {type(batch).__name__}{size}. "
        f"Write a loss_fn(model, batch) that returns one loss per sample, shape (n,)."
    )


def _counted(losses: Tensor, targets: Tensor, ignored: int) -> Tensor | None:
    if targets.shape != losses.shape or targets.is_floating_point():
        return None  # targets are class probabilities: nothing is ignored
    return targets != ignored


def _over_own_dimensions(losses: Tensor, reduction: str, counted: Tensor | None) -> Tensor:
    if losses.ndim == 0:
        raise LossError(
            "the criterion returned a single number for the whole batch; one loss per sample is "
            "needed, shape (n,). Write a loss_fn(model, batch) without the average; or, if the "
            "data give single samples, batch them with DataLoader(data, batch_size=...)."
        )
    if losses.ndim == 1:
        return losses
    if reduction == "none":
        raise LossError(
            f"reduction='none' gave losses of shape {tuple(losses.shape)}, several per sample; "
            f"pass reduction='mean' or 'sum', which is then taken within each sample."
        )
    own = losses.flatten(1)
    if reduction != "mean":
        return own.sum(1)
    if counted is None:
        return own.mean(1)
    return own.sum(1) / counted.flatten(1).sum(1).clamp(min=1)


def causal_lm(
    *, tokens_per_sequence: float | Mapping[str, Any] | Iterable[Mapping[str, Any]] | None = None
) -> LossFn:
    """Per-sequence losses of a Hugging Face causal language model.

    ℓ_i = (1/c_i) Σ_t -log p(y_t | y_<t) over the tokens t of sequence i that count, labels shifted
    by one. c_i is their number: the mean over the sequence's own tokens. Or c_i =
    `tokens_per_sequence` for all; with the average number of tokens that count per sequence, the
    mean over sequences is the mean over tokens, which is the loss that these models are trained on.

    The average is one number for all batches: dividing by that of its own batch, as Hugging Face's
    `loss` does, would let one sequence change the loss of another.

    Batches are mappings with `input_ids`, shape (n, T), and optionally `attention_mask` and
    `labels`. Labels of -100 do not count, whatever the mask says. Without labels the inputs serve,
    and a token counts when neither it nor the one before it is padding, on whichever side that is;
    padded left, models that count positions need `position_ids` too.

    Args:
        tokens_per_sequence: None, a number, or the data in which to count it, once: a DataLoader, a
            list of batches or one batch.

    Returns:
        `loss_fn(model, batch)` with one loss per sequence, shape (n,); a sequence without any
        token that counts has loss 0.

    Raises:
        ArgumentError: `tokens_per_sequence` is not positive, cannot be read twice, or holds no
            token that counts.
        LossError: a batch is no mapping with `input_ids` of shape (n, T); a mask of another shape
            without labels.

    Example:
        >>> class Coin(nn.Module):
        ...     def forward(self, input_ids):
        ...         return torch.zeros(*input_ids.shape, 2)  # two words, equally likely
        >>> labels = torch.tensor([[0, 1, 1, 0], [0, 1, -100, -100]])
        >>> batch = {"input_ids": torch.zeros(2, 4), "labels": labels}
        >>> causal_lm()(Coin(), batch)  # log 2
        tensor([0.6931, 0.6931])
        >>> causal_lm(tokens_per_sequence=batch)(Coin(), batch)  # 3 and 1 tokens, 2 on average
        tensor([1.0397, 0.3466])
    """
    average = None if tokens_per_sequence is None else _average_tokens(tokens_per_sequence)
    return functools.partial(_causal_lm_losses, tokens=average)


def _average_tokens(given: Any) -> float:
    real = isinstance(given, numbers.Real) and not isinstance(given, bool)
    average = float(given) if real else _count_tokens(given)
    if not 0 < average < math.inf:
        raise ArgumentError(
            f"`tokens_per_sequence` must be a positive number, or data with tokens that count; "
            f"got {average}"
        )
    return average


def _count_tokens(data: Any) -> float:
    """Tokens that count per sequence; the data's random states are as found afterwards."""
    batches = [data] if isinstance(data, Mapping) else data
    if isinstance(batches, Iterator) or not isinstance(batches, Iterable):
        raise ArgumentError(
            f"`tokens_per_sequence` must be a number, a DataLoader, a list of batches or one "
            f"batch; got {type(data).__name__}"
        )
    tokens = sequences = 0
    with untouched(nn.Identity(), data):
        for batch in batches:
            labels = _labels(batch)
            tokens += int((labels != IGNORED).sum())
            sequences += len(labels)
    return tokens / max(sequences, 1)


def _causal_lm_losses(model: nn.Module, batch: Batch, tokens: float | None = None) -> Tensor:
    labels = _labels(batch)
    logits = _predictions(model(**{key: batch[key] for key in batch if key != "labels"}))
    if logits.dtype in (torch.float16, torch.bfloat16):
        logits = logits.float()
    losses = nn.functional.cross_entropy(
        logits[:, :-1].transpose(1, 2), labels, ignore_index=IGNORED, reduction="none"
    )
    counted = (labels != IGNORED).sum(1).clamp(min=1) if tokens is None else tokens
    return losses.sum(1) / counted


def _labels(batch: Any) -> Tensor:
    """What positions 1 to T - 1 have to be, shape (n, T - 1), IGNORED where it does not count."""
    ids = batch.get("input_ids") if isinstance(batch, Mapping) else None
    if not isinstance(ids, Tensor) or ids.ndim != 2:
        got = f"input_ids: {_what(ids)}" if isinstance(batch, Mapping) else _what(batch)
        raise LossError(
            f"causal_lm needs batches that map 'input_ids' to token ids, shape (n, T); got {got}"
        )
    labels, mask = batch.get("labels"), batch.get("attention_mask")
    if labels is not None or mask is None:
        given: Tensor = ids if labels is None else labels
        return given[:, 1:]
    if mask.shape != ids.shape:
        raise LossError(
            f"attention_mask must have the shape {tuple(ids.shape)} of input_ids, with 0 at "
            f"padding; got {tuple(mask.shape)}. Give `labels`, with -100 for what does not count."
        )
    real = mask != 0
    return ids[:, 1:].masked_fill(~(real[:, 1:] & real[:, :-1]), IGNORED)


def _what(item: Any) -> str:
    shape = f" of shape {tuple(item.shape)}" if isinstance(item, Tensor) else ""
    return f"{type(item).__name__}{shape}"
