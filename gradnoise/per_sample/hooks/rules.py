"""One rule per operation: from inputs and the output's gradient to per-sample gradients.

A rule has the operation's own signature behind `at`, which knows where the samples are, and
`delta`, the gradient of the output. It gives factored gradients for every argument named in `of`;
they are made only for the arguments that are parameters. An operation without a rule is
differentiated sample by sample, by `local`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ...errors import EngineError
from ...tensors.sums import sq_norms
from .convolution import Convolution, Correlated
from .embedding_rows import EmbeddingRows
from .factored import FactoredGradients, Materialised, at_least_float32
from .layout import Layout
from .outer_products import SingleOuterProduct, SummedOuterProducts

FactoredByArgument = dict[str, Callable[[], FactoredGradients]]
Norms = Callable[[], Tensor] | None


class At(NamedTuple):
    """Where the samples of one operation's output are, how many, and its dtype."""

    layout: Layout
    samples: int
    dtype: torch.dtype

    def like(self, tensor: Tensor) -> Tensor:
        """An input as the operation saw it (autocast rounds), in no less than float32."""
        return at_least_float32(tensor if tensor.dtype == self.dtype else tensor.to(self.dtype))

    def positions(self, tensor: Tensor, own: int = 1) -> Tensor:
        """(n, T, ...) with the last `own` dimensions kept."""
        return self.layout.positions(tensor, self.samples, own)

    def alone(self, tensor: Tensor) -> bool:
        """Whether a tensor is (n, d): one row for each sample."""
        return not self.layout.axis and tensor.ndim == 2 and tensor.shape[0] == self.samples

    def split(self, tensor: Tensor) -> Tensor:
        """(n, ...), where each of the n is what a batch of one sample would be."""
        return self.layout.split(tensor, self.samples)

    def channels(self, tensor: Tensor) -> Tensor:
        """(n, C, L) of a tensor with channels in its second dimension."""
        alone = self.split(tensor).movedim(2, 1)
        return alone.reshape(*alone.shape[:2], -1)


@dataclass(frozen=True)
class Rule:
    """How one operation is differentiated.

    Args:
        factored: (at, delta, *arguments) -> factored gradients for each argument in `of`.
        of: the arguments that may be parameters.
        names: of all arguments, in order.
        fits: whether it holds for these arguments; where not, there is no rule.
        values: whether it looks at its inputs, or at their shapes alone.
    """

    factored: Callable[..., FactoredByArgument]
    of: frozenset[str]
    names: tuple[str, ...]
    fits: Callable[[dict[str, Any]], bool]
    values: bool

    def bind(self, args: Sequence[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
        """The operation's arguments by name."""
        return {**dict(zip(self.names, args, strict=False)), **kwargs}


RULES: dict[Any, Rule] = {}


def rule(
    *operations: Any,
    of: str,
    fits: Callable[[dict[str, Any]], bool] = lambda _: True,
    values: bool = True,
) -> Callable[[Callable[..., FactoredByArgument]], Callable[..., FactoredByArgument]]:
    """Register a rule for operations of one signature."""

    def register(factored: Callable[..., FactoredByArgument]) -> Callable[..., FactoredByArgument]:
        names = tuple(inspect.signature(factored).parameters)[2:]  # behind at and delta
        for operation in operations:
            RULES[operation] = Rule(factored, frozenset(of.split()), names, fits, values)
        return factored

    return register


@rule(F.linear, of="weight bias")
def linear(
    at: At, delta: Tensor, input: Tensor, weight: Tensor, bias: Any = None
) -> FactoredByArgument:
    """y = x Wᵀ + b."""
    cache: list[Tensor] = []

    def norms() -> Tensor:  # of the bias; a factor in those of the weight
        if not cache:
            cache.append(sq_norms(delta))
        return cache[0]

    shared = norms if at.alone(delta) else None
    return {
        "weight": lambda: _outer(at, delta, at.like(input), weight.shape, shared),
        "bias": lambda: Materialised(_over_positions(at, delta), shared),
    }


def _outer(
    at: At, left: Tensor, right: Tensor, shape: torch.Size, left_sq: Norms = None
) -> FactoredGradients:
    if at.alone(left):
        return SingleOuterProduct(left, right, shape, left_sq)
    return SummedOuterProducts(at.positions(left)[:, None], at.positions(right)[:, None], shape)


@rule(
    torch.matmul,
    torch.mm,
    Tensor.matmul,
    Tensor.mm,
    Tensor.__matmul__,
    of="other",
    fits=lambda given: given["other"].ndim == 2,
)
def matmul(at: At, delta: Tensor, input: Tensor, other: Tensor) -> FactoredByArgument:
    """y = x W."""
    return {"other": lambda: _outer(at, at.like(input), delta, other.shape)}


@rule(torch.addmm, Tensor.addmm, of="input mat2")
def addmm(
    at: At,
    delta: Tensor,
    input: Tensor,
    mat1: Tensor,
    mat2: Tensor,
    *,
    beta: float = 1,
    alpha: float = 1,
) -> FactoredByArgument:
    """y = β b + α x W."""
    return {
        "mat2": lambda: _outer(at, alpha * at.like(mat1), delta, mat2.shape),
        "input": lambda: Materialised(_summed_to(beta * _over_positions(at, delta), input.shape)),
    }


def _over_positions(at: At, delta: Tensor) -> Tensor:
    return delta if at.alone(delta) else at.positions(delta).sum(1)


def _summed_to(rows: Tensor, shape: torch.Size) -> Tensor:
    """(n, d) as (n, *shape) for a shape that broadcasts to (…, d)."""
    if shape.numel() not in (1, rows.shape[1]):
        raise EngineError("a bias that differs between positions")
    return (rows if shape.numel() > 1 else rows.sum(1)).reshape(-1, *shape)


@rule(torch.conv1d, torch.conv2d, torch.conv3d, of="weight bias")
def convolution(
    at: At, delta: Tensor, input: Tensor, weight: Tensor, bias: Any = None,
    stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1,
) -> FactoredByArgument:  # fmt: skip
    """Weights slide over windows of the input."""
    return {
        "weight": lambda: Convolution(
            at.split(at.like(input)),
            at.split(delta),
            weight.shape,
            Correlated.of(weight.ndim - 2, weight.shape[2:], stride, padding, dilation, groups),
        ),
        "bias": lambda: Materialised(at.channels(delta).sum(2)),
    }


@rule(torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d, of="weight bias")
def transposed_convolution(
    at: At, delta: Tensor, input: Tensor, weight: Tensor, bias: Any = None,
    stride: Any = 1, padding: Any = 0, output_padding: Any = 0, groups: int = 1, dilation: Any = 1,
) -> FactoredByArgument:  # fmt: skip
    """The transpose of a convolution: input and output change places."""
    how = Correlated.of(weight.ndim - 2, weight.shape[2:], stride, padding, dilation, groups)
    return {
        "weight": lambda: Convolution(at.split(delta), at.split(at.like(input)), weight.shape, how),
        "bias": lambda: Materialised(at.channels(delta).sum(2)),
    }


@rule(F.embedding, of="weight")
def embedding(
    at: At,
    delta: Tensor,
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> FactoredByArgument:
    """Rows of a table."""
    if scale_grad_by_freq or max_norm is not None:
        raise EngineError("an embedding with max_norm or scale_grad_by_freq, which couples samples")
    ids, values = at.positions(input, 0), at.positions(delta)
    if padding_idx is not None:
        values = values * (ids != padding_idx % len(weight))[:, :, None]
    return {"weight": lambda: EmbeddingRows(ids, values, weight.shape)}


def _register_normalisation(operation: Callable[..., Tensor]) -> None:
    """Register y = x̂ ∘ w + b, over the last dimensions of each position, or over channels.

    x̂, the operation without w and b, is computed again, in float32 at least. The statistics of a
    batch would couple the samples and are refused before.
    """
    names = tuple(inspect.signature(operation).parameters)

    def normalisation(
        at: At, delta: Tensor, input: Tensor, *args: Any, **kwargs: Any
    ) -> FactoredByArgument:
        given = {**dict(zip(names[1:], args, strict=False)), **kwargs}
        given = {key: value for key, value in given.items() if key not in ("weight", "bias")}
        if given.get("use_input_stats", operation is F.instance_norm):
            # the sample's own statistics are taken: the running ones would be updated once more
            given |= {key: None for key in ("running_mean", "running_var") if key in given}

        def normal() -> Tensor:
            wide = {
                k: at_least_float32(a) if isinstance(a, Tensor) else a for k, a in given.items()
            }
            return operation(at_least_float32(input), **wide)

        def summed(tensor: Tensor) -> Materialised:
            if "normalized_shape" not in given:
                return Materialised(at.channels(tensor).sum(2))
            return Materialised(at.positions(tensor, len(given["normalized_shape"])).sum(1))

        return {
            "weight": lambda: summed(delta * normal()),
            "bias": lambda: summed(delta),
        }

    of = frozenset(("weight", "bias")) & set(names)
    RULES[operation] = Rule(normalisation, of, names, fits=lambda _: True, values=True)


for _operation in (F.layer_norm, F.rms_norm, F.group_norm, F.instance_norm, F.batch_norm):
    _register_normalisation(_operation)


@rule(torch.add, Tensor.add, Tensor.__add__, Tensor.__radd__, of="input other", values=False)
def add(at: At, delta: Tensor, input: Any, other: Any, *, alpha: float = 1) -> FactoredByArgument:
    """y = x + α p, broadcast: positional embeddings, hand-written biases."""
    return {
        "input": lambda: Materialised(_broadcast_back(at, delta, input.shape)),
        "other": lambda: Materialised(_broadcast_back(at, alpha * delta, other.shape)),
    }


@rule(torch.sub, Tensor.sub, Tensor.__sub__, of="input other", values=False)
def subtract(
    at: At, delta: Tensor, input: Any, other: Any, *, alpha: float = 1
) -> FactoredByArgument:
    """y = x - α p, broadcast."""
    return add(at, delta, input, other, alpha=-alpha)


@rule(torch.mul, Tensor.mul, Tensor.__mul__, Tensor.__rmul__, of="input other")
def multiply(at: At, delta: Tensor, input: Any, other: Any) -> FactoredByArgument:
    """y = x ∘ p, broadcast: scales of layers, gates, temperatures."""
    return {
        "input": lambda: Materialised(_broadcast_back(at, delta * at.like(other), input.shape)),
        "other": lambda: Materialised(_broadcast_back(at, delta * at.like(input), other.shape)),
    }


def _broadcast_back(at: At, delta: Tensor, shape: torch.Size) -> Tensor:
    """(n, *shape): the output's gradient summed over what a tensor was broadcast along."""
    alone = at.split(delta)
    padded = (1,) * (alone.ndim - 1 - len(shape)) + tuple(shape)
    if any(size not in (1, own) for size, own in zip(padded, alone.shape[1:], strict=True)):
        raise EngineError("a parameter with separate entries for every sample of the batch")
    along = [d + 1 for d, size in enumerate(padded) if size == 1 and alone.shape[d + 1] > 1]
    return (alone.sum(along) if along else alone).reshape(at.samples, *shape)


@rule(
    Tensor.expand,
    Tensor.expand_as,
    Tensor.broadcast_to,
    torch.broadcast_to,
    of="input",
    values=False,
)
def copies(at: At, delta: Tensor, input: Tensor, *sizes: Any, **options: Any) -> FactoredByArgument:
    """One copy of a parameter for every sample: class tokens, learned queries, initial states."""
    return {"input": lambda: Materialised(_broadcast_back(at, delta, input.shape))}
