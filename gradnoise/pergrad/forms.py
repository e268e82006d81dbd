"""Per-sample gradients of one tensor in factors: sums, norms and products without n×P numbers.

A form knows the gradients g_i of n samples with respect to one tensor. Whatever a subclass does not
do from its factors is done here from the gradients themselves, a few samples at a time.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from ..trees import widen

BLOCK = 1024  # products added in float32 before they are added in float64: errors of 1e-8
CHUNK_BYTES = 4 * 2**20  # of gradients written out at a time: what a processor's cache holds


@dataclass(frozen=True)
class Measured:
    """Sums over the samples of a form.

    Args:
        total: Σ_i g_i.
        sq_norms: ‖g_i‖², shape (n,), wide.
        dots: g_iᵀu, shape (n,), wide.
        squares: Σ_i g_i² per coordinate, wide.
    """

    total: Tensor
    sq_norms: Tensor
    dots: Tensor | None = None
    squares: Tensor | None = None


class Form(abc.ABC):
    """g_i of n samples, each of the shape of the tensor.

    Args:
        count: n.
        shape: of the tensor.
    """

    count: int
    shape: torch.Size

    _spent: Tensor | None = None

    def kind(self) -> Any:
        """Forms of one kind are joined; by default a form stands for itself."""
        return id(self)

    @abc.abstractmethod
    def gradients(self, part: slice) -> Tensor:
        """g_i of some samples, shape (k, *shape)."""

    def total(self) -> Tensor:
        """Σ_i g_i, shape `shape`."""
        return self.measure().total

    def spend(self) -> Tensor:
        """Σ_i g_i, kept for later: what remains to be found are the norms."""
        if self._spent is None:
            self._spent = self.total()
        return self._spent

    def measure(self, direction: Tensor | None = None, squares: bool = False) -> Measured:
        """All sums asked for, in one go over the samples."""
        return self._written_out(direction, squares)

    def inner(self, _other: Form) -> Tensor | None:
        """⟨g_i, g'_i⟩ of every sample, shape (n,), where there is a short way; else None."""
        return None

    def method(self) -> tuple[str, str]:
        """How the norms are found, and why."""
        return "written out", "no factors to multiply"

    def extra(self) -> float:
        """Operations per sample beyond those of the plain gradient, for people."""
        return 4.0 * self.shape.numel()  # squares and sums of what is written out

    def plain(self) -> float:
        """Operations per sample of the plain gradient with respect to the tensor."""
        return 2.0 * self.shape.numel()

    def _written_out(self, direction: Tensor | None, squares: bool) -> Measured:
        parts = [_measure_rows(self.gradients(part), direction, squares) for part in self._parts()]
        total, square = parts[0].total, parts[0].squares
        for part in parts[1:]:
            total.add_(part.total)
            if square is not None and part.squares is not None:
                square.add_(part.squares)
        along = [part.dots for part in parts if part.dots is not None]
        dots = torch.cat(along) if along else None
        return Measured(total, torch.cat([part.sq_norms for part in parts]), dots, square)

    def _parts(self) -> Iterator[slice]:
        rows = max(1, CHUNK_BYTES // (4 * max(1, self.shape.numel())))
        for start in range(0, self.count, rows):
            yield slice(start, min(start + rows, self.count))


def _measure_rows(gradients: Tensor, direction: Tensor | None, squares: bool) -> Measured:
    rows = gradients.reshape(len(gradients), -1)
    return Measured(
        gradients.sum(0),
        sq_norms(rows),
        None if direction is None else dots(rows, direction.to(rows.dtype).reshape(1, -1)),
        widen(gradients).square().sum(0) if squares else None,
    )


def sq_norms(rows: Tensor) -> Tensor:
    """Σ over all but the leading dimension of squares: blocks of the dtype's own, added wide."""

    def add(block: Tensor) -> Tensor:
        norms: Tensor = torch.linalg.vector_norm(block, dim=-1)  # no copy, unlike a product
        return widen(norms).square()

    rows = rows.reshape(rows.shape[0], -1)
    whole = rows.shape[1] // BLOCK * BLOCK
    if not whole:
        return add(rows)
    blocks = add(rows[:, :whole].reshape(rows.shape[0], -1, BLOCK)).sum(1)
    return blocks + add(rows[:, whole:]) if whole < rows.shape[1] else blocks


def dots(first: Tensor, second: Tensor) -> Tensor:
    """Σ over all but the leading dimension of products, as `sq_norms`."""
    first, second = (t.reshape(t.shape[0], -1) for t in (first, second))
    whole = first.shape[1] // BLOCK * BLOCK
    rest = widen(torch.linalg.vecdot(first[:, whole:], second[:, whole:]))
    if not whole:
        return rest
    blocks = (t[:, :whole].reshape(t.shape[0], -1, BLOCK) for t in (first, second))
    return widen(torch.linalg.vecdot(*blocks)).sum(1) + rest


class Whole(Form):
    """Gradients that are at hand, shape (n, *shape): biases, scales, whatever is small."""

    def __init__(self, gradients: Tensor) -> None:
        self._gradients = gradients
        self.count, self.shape = len(gradients), gradients.shape[1:]

    def kind(self) -> Any:
        return Whole

    def gradients(self, part: slice) -> Tensor:
        return self._gradients[part]

    def total(self) -> Tensor:
        return self._gradients.sum(0)

    def measure(self, direction: Tensor | None = None, squares: bool = False) -> Measured:
        return _measure_rows(self._gradients, direction, squares)

    def method(self) -> tuple[str, str]:
        return "sum over positions", "no larger than the output"


class Lazy(Form):
    """Gradients computed for some samples at a time.

    Args:
        count, shape: of the form.
        compute: part -> (k, *shape).
        how: the method's name and reason.
    """

    def __init__(
        self,
        count: int,
        shape: torch.Size,
        compute: Callable[[slice], Tensor],
        how: tuple[str, str],
    ) -> None:
        self.count, self.shape = count, shape
        self._compute, self._how = compute, how

    def gradients(self, part: slice) -> Tensor:
        return self._compute(part)

    def method(self) -> tuple[str, str]:
        return self._how


class Outer(Form):
    """g_i = Σ_t left_it ⊗ right_it over T positions, in each of `groups` blocks of rows.

    Args:
        left: shape (n, groups, T, p).
        right: shape (n, groups, T, q).
        shape: of the tensor, (groups·p·q entries).
    """

    def __init__(self, left: Tensor, right: Tensor, shape: torch.Size) -> None:
        self.left, self.right, self.shape = left, right, shape
        self.count = len(left)

    def kind(self) -> Any:
        return Outer, self.left.shape[1::2]

    def gradients(self, part: slice) -> Tensor:
        blocks = self.left[part].transpose(2, 3) @ self.right[part]
        return blocks.reshape(len(blocks), *self.shape)

    def total(self) -> Tensor:
        if self._spent is not None:
            return self._spent
        if self.left.shape[1] == 1:
            left, right = (t.flatten(0, 2) for t in (self.left, self.right))
            return (left.T @ right).reshape(self.shape)
        left, right = (t.transpose(0, 1).flatten(1, 2) for t in (self.left, self.right))
        return (left.transpose(1, 2) @ right).reshape(self.shape)

    def measure(self, direction: Tensor | None = None, squares: bool = False) -> Measured:
        positions = self.left.shape[2]
        if (squares and positions > 1) or not self._multiplies():
            return self._written_out(direction, squares)
        return Measured(
            self.total(),
            self._gram(self),
            None if direction is None else self._dots(direction),
            self._squares() if squares else None,
        )

    def inner(self, other: Form) -> Tensor | None:
        return self._gram(other) if isinstance(other, Outer) else None

    def _gram(self, other: Outer) -> Tensor:
        """⟨g_i, g'_i⟩: Gram matrices multiplied entry by entry."""
        if self is other and self.left.shape[2] == 1:
            norms = [sq_norms(side.flatten(0, 1)) for side in (self.left, self.right)]
            return (norms[0] * norms[1]).reshape(self.count, -1).sum(1)
        gram = self.left @ other.left.transpose(2, 3)
        return dots(gram, self.right @ other.right.transpose(2, 3))

    def method(self) -> tuple[str, str]:
        positions, p, q = self._sizes()
        if positions == 1:
            return "product of norms", f"one position: {p} + {q} numbers for {p} × {q}"
        how = f"{positions} positions of {p} + {q} numbers for {p} × {q}"
        return ("Gram matrices" if self._multiplies() else "written out"), how

    def extra(self) -> float:
        positions, p, q = self._sizes()
        if not self._multiplies():
            return super().extra() + (self.plain() if self._spent is not None else 0.0)
        return 2.0 * self.left.shape[1] * (p + q) * positions**2

    def plain(self) -> float:
        return 2.0 * math.prod(self._sizes()) * self.left.shape[1]

    def _sizes(self) -> tuple[int, int, int]:
        return self.left.shape[2], self.left.shape[3], self.right.shape[3]

    def _multiplies(self) -> bool:
        """Whether Gram matrices cost less than gradients written out, which give the sum as well.

        In operations they are T(p + q) against pq; measured, they are worth it below half of
        that, or at once where the sum has been spent.
        """
        positions, p, q = self._sizes()
        weight = 2 if self._spent is None else 1
        return positions == 1 or weight * positions * (p + q) <= p * q

    def _dots(self, direction: Tensor) -> Tensor:
        groups, (_, p, q) = self.left.shape[1], self._sizes()
        along = direction.to(self.left.dtype).reshape(groups, p, q)
        return dots(self.left @ along, self.right)

    def _squares(self) -> Tensor:
        left, right = (widen(t[:, :, 0]).square().transpose(0, 1) for t in (self.left, self.right))
        return (left.transpose(1, 2) @ right).reshape(self.shape)


class Lookup(Form):
    """g_i has the rows `values`_it added at `ids`_it: an embedding, whose one-hot inputs are ids.

    Args:
        ids: shape (n, T).
        values: shape (n, T, d).
        shape: of the tensor, (rows, d).
    """

    def __init__(self, ids: Tensor, values: Tensor, shape: torch.Size) -> None:
        self.ids, self.values, self.shape = ids, values, shape
        self.count = len(ids)

    def kind(self) -> Any:
        return Lookup

    def gradients(self, part: slice) -> Tensor:
        ids, values = self.ids[part], self.values[part]
        rows = values.new_zeros(len(ids), *self.shape)
        return rows.scatter_add_(1, ids[:, :, None].expand_as(values), values)

    def total(self) -> Tensor:
        if self._spent is not None:
            return self._spent
        zero = self.values.new_zeros(self.shape)
        return zero.index_add_(0, self.ids.reshape(-1), self.values.flatten(0, 1))

    def measure(self, direction: Tensor | None = None, squares: bool = False) -> Measured:
        samples, ids, rows = self._distinct()
        own = widen(torch.zeros(self.count, device=rows.device))
        square = None
        if squares:
            square = widen(rows.new_zeros(self.shape)).index_add_(0, ids, widen(rows).square())
        return Measured(
            self.total(),
            own.index_add_(0, samples, sq_norms(rows)),
            None if direction is None else dots(direction.to(rows.dtype)[self.ids], self.values),
            square,
        )

    def method(self) -> tuple[str, str]:
        return "rows looked up", "equal ids of a sample added, all other rows are zero"

    def extra(self) -> float:
        return 4.0 * self.values[0].numel()

    def plain(self) -> float:
        return 1.0 * self.values[0].numel()

    def inner(self, other: Form) -> Tensor | None:
        if isinstance(other, Outer) and other.left.shape[1::2] == (1, self.shape[0]):
            return self._tied(other)
        return None

    def _tied(self, other: Outer) -> Tensor:
        """With an outer product over the same rows: an embedding and the head tied to it."""
        left, right = other.left[:, 0], other.right[:, 0]  # [n, T, rows], [n, T, d]
        picked = left.gather(2, self.ids[:, None].expand(-1, left.shape[1], -1))
        return dots(picked, right @ self.values.transpose(1, 2))

    def _distinct(self) -> tuple[Tensor, Tensor, Tensor]:
        """Sample, id and summed row of every distinct id of every sample."""
        samples = torch.arange(self.count, device=self.ids.device)[:, None]
        keys = (samples * self.shape[0] + self.ids).reshape(-1)
        distinct, where = torch.unique(keys, return_inverse=True)
        rows = self.values.new_zeros(len(distinct), self.shape[1])
        rows.index_add_(0, where, self.values.flatten(0, 1))
        return distinct // self.shape[0], distinct % self.shape[0], rows


class Sum(Form):
    """Several uses of one tensor: their gradients are added before the norm is taken."""

    def __init__(self, forms: Sequence[Form]) -> None:
        self.forms = _joined(forms)
        self.count, self.shape = forms[0].count, forms[0].shape

    def gradients(self, part: slice) -> Tensor:
        first, *others = (form.gradients(part) for form in self.forms)
        return sum(others, first)

    def total(self) -> Tensor:
        first, *others = (form.total() for form in self.forms)
        return sum(others, first)

    def measure(self, direction: Tensor | None = None, squares: bool = False) -> Measured:
        if len(self.forms) == 1:
            return self.forms[0].measure(direction, squares)
        crosses = None if squares else self._crosses()
        if crosses is None:
            return self._written_out(direction, squares)
        parts = [form.measure(direction) for form in self.forms]
        along = [part.dots for part in parts if part.dots is not None]
        return Measured(
            sum((part.total for part in parts[1:]), parts[0].total),
            sum((part.sq_norms for part in parts[1:]), parts[0].sq_norms) + 2 * sum(crosses),
            sum(along[1:], along[0]) if along else None,
        )

    def method(self) -> tuple[str, str]:
        if len(self.forms) == 1:
            return self.forms[0].method()
        names = " + ".join(form.method()[0] for form in self.forms)
        return names, "added before the norm is taken"

    def extra(self) -> float:
        return sum(form.extra() for form in self.forms) + (
            super().extra() if len(self.forms) > 1 and self._crosses() is None else 0.0
        )

    def plain(self) -> float:
        return sum(form.plain() for form in self.forms)

    def _crosses(self) -> list[Tensor] | None:
        """Inner products of each pair of forms; None where a pair has no short way."""
        crosses = []
        for first, second in combinations(self.forms, 2):
            cross = first.inner(second)
            cross = second.inner(first) if cross is None else cross
            if cross is None:
                return None
            crosses.append(cross)
        return crosses


def _joined(forms: Sequence[Form]) -> list[Form]:
    """Outer products of one layout become one over all their positions; so do lookups."""
    groups: dict[Any, list[Form]] = {}
    for form in forms:
        groups.setdefault(form.kind(), []).append(form)
    return [own[0] if len(own) == 1 else _join(own) for own in groups.values()]


def _join(forms: Sequence[Form]) -> Form:
    first = forms[0]
    joined: Form
    if isinstance(first, Outer):
        joined = Outer(_cat(forms, "left", 2), _cat(forms, "right", 2), first.shape)
    elif isinstance(first, Lookup):
        joined = Lookup(_cat(forms, "ids", 1), _cat(forms, "values", 1), first.shape)
    else:
        joined = Whole(sum(form.gradients(slice(None)) for form in forms))  # type: ignore[arg-type]
    spent = [form._spent for form in forms if form._spent is not None]
    joined._spent = sum(spent[1:], spent[0]) if len(spent) == len(forms) else None
    return joined


def _cat(forms: Sequence[Form], side: str, dim: int) -> Tensor:
    return torch.cat([getattr(form, side) for form in forms], dim)
