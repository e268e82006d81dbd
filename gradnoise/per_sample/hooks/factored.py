"""Per-sample gradients of one tensor in factors: sums, norms and products without n×P numbers.

`FactoredGradients` hold the gradients g_i of n samples with respect to one tensor. What a subclass
does not compute from its factors is computed here from the gradients themselves, a few samples at
a time.
"""

from __future__ import annotations

import abc
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...tensors.sums import dots, sq_norms
from ...tensors.trees import widen

CANCELLED = 1e-3  # of the sum of squares of parts, below which their sum is written out
CHUNK_BYTES = 8 * 2**20  # of gradients written out at a time: what a processor's cache holds


class Asked(NamedTuple):
    """What is computed beside sums and norms.

    Args:
        directions: k vectors u, shape (k, *shape).
        squares: whether the squares of every coordinate are.
        scale: R, shape (*shape): norms are of R ⊙ g_i.
        total: whether the sum is; where it is not, only norms written out take its time.
        mend: whether norms that lost their digits, because parts cancel, are found again from
            gradients written out; a device is waited for to see them. Else they are nan.
    """

    directions: Tensor | None = None
    squares: bool = False
    scale: Tensor | None = None
    mend: bool = True
    total: bool = True

    def dots(self, product: Callable[[Tensor], Tensor]) -> Tensor | None:
        """g_iᵀu of every direction, shape (n, k), from how it is found for one of them."""
        if self.directions is None:
            return None
        return torch.stack([product(direction) for direction in self.directions], dim=1)


NOTHING = Asked()


def _added(totals: Sequence[Tensor | None]) -> Tensor | None:
    """Their sum, in the first one; None where they were not asked for."""
    first, *others = totals
    for other in others:
        if first is not None and other is not None:
            first.add_(other)
    return first


class Measured(NamedTuple):
    """Sums over the samples; float64 is float32 on MPS.

    Args:
        total: Σ_i g_i; None where it was not asked for.
        sq_norms: ‖g_i‖², or ‖scale ⊙ g_i‖² where a scale was given, shape (n,), float64.
        dots: g_iᵀu, shape (n, k), float64.
        squares: Σ_i g_i² per coordinate, float64.
    """

    total: Tensor | None
    sq_norms: Tensor
    dots: Tensor | None = None
    squares: Tensor | None = None

    def of_none(self) -> Measured:
        """The same sums, without any sample of its own."""
        dots = None if self.dots is None else self.dots[:0]
        return self._replace(sq_norms=self.sq_norms[:0], dots=dots)

    def joined(self, other: Measured) -> Measured:
        """The sums over these samples and others; added in place."""
        dots = [part.dots for part in (self, other) if part.dots is not None]
        square = None
        if self.squares is not None and other.squares is not None:
            square = self.squares.add_(other.squares)
        norms = torch.cat([self.sq_norms, other.sq_norms])
        total = _added([self.total, other.total])
        return Measured(total, norms, torch.cat(dots) if dots else None, square)


class FactoredGradients(abc.ABC):
    """g_i of n samples, each of the shape of the tensor.

    Args:
        count: n.
        shape: of the tensor.
    """

    count: int
    shape: torch.Size
    held: int = 0  # numbers per sample beyond the gradient, while it is written out

    def kind(self) -> Any:
        """Terms of equal kinds are joined into one; by default no two are equal."""
        return id(self)

    def join(self, terms: Sequence[Any]) -> FactoredGradients:
        """One for several of this kind; by default there is only one."""
        own: FactoredGradients
        (own,) = terms
        return own

    @abc.abstractmethod
    def gradients(self, part: slice) -> Tensor:
        """g_i of some samples, shape (k, *shape)."""

    def some(self, rows: slice) -> FactoredGradients:
        """The gradients of these samples alone."""
        taken = range(self.count)[rows]

        def compute(part: slice) -> Tensor:
            own = taken[part]
            return self.gradients(slice(own.start, own.stop, own.step))

        return Deferred(len(taken), self.shape, compute, self.method(), self.held)

    def measure(self, asked: Asked = NOTHING) -> Measured:
        """All sums asked for, in one go over the samples; norms of scale ⊙ g_i."""
        return self._written_out(asked)

    def inner(self, _other: FactoredGradients) -> Tensor | None:
        """⟨g_i, g'_i⟩ of every sample, shape (n,), if the factors give them; else None."""
        return None

    def method(self) -> tuple[str, str]:
        """How the norms are found, and why."""
        return "written out", "no factors to multiply"

    def extra_cost(self) -> float:
        """Operations per sample beyond those of the batch gradient; an estimate for the report."""
        return 4.0 * self.shape.numel()  # squares and sums of what is written out

    def batch_cost(self) -> float:
        """Operations per sample of the batch gradient with respect to the tensor."""
        return 2.0 * self.shape.numel()

    def _written_out(self, asked: Asked) -> Measured:
        parts = (_measure_rows(self.gradients(part), asked) for part in self._parts())
        return functools.reduce(Measured.joined, parts)  # one after the other: each holds a sum

    def _parts(self) -> Iterator[slice]:
        rows = max(1, CHUNK_BYTES // (4 * max(1, self.shape.numel() + self.held)))
        for start in range(0, self.count, rows):
            yield slice(start, min(start + rows, self.count))


def _measure_rows(
    gradients: Tensor, asked: Asked, norms: Callable[[], Tensor] | None = None
) -> Measured:
    gradients = at_least_float32(gradients)
    rows = gradients if gradients.ndim == 2 else gradients.reshape(gradients.shape[0], -1)
    return Measured(
        gradients.sum(0) if asked.total else None,
        _norms(rows, asked.scale) if norms is None or asked.scale is not None else norms(),
        asked.dots(lambda u: dots(rows, u.to(rows.dtype).reshape(1, -1))),
        widen(gradients).square().sum(0) if asked.squares else None,
    )


def _norms(rows: Tensor, scale: Tensor | None) -> Tensor:
    return sq_norms(rows if scale is None else rows * scale.to(rows.dtype).reshape(1, -1))


def at_least_float32(tensor: Tensor) -> Tensor:
    """Half precision as float32, before anything is squared or summed."""
    half = tensor.dtype in (torch.float16, torch.bfloat16)
    return tensor.float() if half else tensor


class Materialised(FactoredGradients):
    """Gradients in memory, shape (n, *shape): biases, scales, whatever is small.

    Args:
        gradients: g_i.
        norms: ‖g_i‖², for whom others need them as well.
    """

    def __init__(self, gradients: Tensor, norms: Callable[[], Tensor] | None = None) -> None:
        self._gradients, self._norms = gradients, norms
        self.count, self.shape = gradients.shape[0], gradients.shape[1:]

    def kind(self) -> Any:
        return Materialised

    def join(self, terms: Sequence[Materialised]) -> FactoredGradients:
        first, *others = (term._gradients for term in terms)
        return Materialised(sum(others, first))

    def gradients(self, part: slice) -> Tensor:
        return self._gradients[part]

    def some(self, rows: slice) -> FactoredGradients:
        return Materialised(self._gradients[rows])

    def measure(self, asked: Asked = NOTHING) -> Measured:
        return _measure_rows(self._gradients, asked, self._norms)

    def method(self) -> tuple[str, str]:
        return "sum over positions", "no larger than the output"


class Deferred(FactoredGradients):
    """Gradients computed for some samples at a time.

    Args:
        count, shape: as of `FactoredGradients`.
        compute: part -> (k, *shape).
        how: the method's name and reason.
        held: further numbers that a sample takes meanwhile.
    """

    def __init__(
        self,
        count: int,
        shape: torch.Size,
        compute: Callable[[slice], Tensor],
        how: tuple[str, str],
        held: int = 0,
    ) -> None:
        self.count, self.shape, self.held = count, shape, held
        self._compute, self._how = compute, how

    def gradients(self, part: slice) -> Tensor:
        return self._compute(part)

    def method(self) -> tuple[str, str]:
        return self._how


class Summed(FactoredGradients):
    """Several operations with one tensor: their gradients are added before the norm is taken."""

    def __init__(self, terms: Sequence[FactoredGradients]) -> None:
        groups: dict[Any, list[FactoredGradients]] = {}
        for term in terms:
            groups.setdefault(term.kind(), []).append(term)
        self.terms = [own[0].join(own) if len(own) > 1 else own[0] for own in groups.values()]
        self.count, self.shape = terms[0].count, terms[0].shape

    def gradients(self, part: slice) -> Tensor:
        first, *others = (term.gradients(part) for term in self.terms)
        return sum(others, first)

    def measure(self, asked: Asked = NOTHING) -> Measured:
        if len(self.terms) == 1:
            return self.terms[0].measure(asked)
        entries = asked.squares or asked.scale is not None
        crosses = None if entries else self._crosses()
        if crosses is None:
            return self._written_out(asked)
        parts = [term.measure(asked) for term in self.terms]
        own = sum((part.sq_norms for part in parts[1:]), parts[0].sq_norms)
        norms = own + 2 * sum(crosses)
        kept = norms >= CANCELLED * own  # where terms cancel, no digit is left
        if not asked.mend:
            norms = norms.where(kept, math.nan)
        elif not bool(kept.all()):
            return self._written_out(asked)
        along = [part.dots for part in parts if part.dots is not None]
        return Measured(
            _added([part.total for part in parts]),
            norms,
            sum(along[1:], along[0]) if along else None,
        )

    def method(self) -> tuple[str, str]:
        if len(self.terms) == 1:
            return self.terms[0].method()
        names = " + ".join(term.method()[0] for term in self.terms)
        return names, "added before the norm is taken"

    def extra_cost(self) -> float:
        return sum(term.extra_cost() for term in self.terms) + (
            super().extra_cost() if len(self.terms) > 1 and self._crosses() is None else 0.0
        )

    def batch_cost(self) -> float:
        return sum(term.batch_cost() for term in self.terms)

    def _crosses(self) -> list[Tensor] | None:
        """Inner products of each pair of terms; None where the factors of a pair do not give it."""
        crosses = []
        for first, second in combinations(self.terms, 2):
            cross = first.inner(second)
            cross = second.inner(first) if cross is None else cross
            if cross is None:
                return None
            crosses.append(cross)
        return crosses
