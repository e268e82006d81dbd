"""Matrices given by their products alone: sums, multiples, transposes and blocks of them."""

from __future__ import annotations

import abc
from collections.abc import Iterable
from numbers import Real
from typing import Any, overload

import scipy
import torch
from torch import Tensor

from ..errors import OperatorError
from ..tensors.space import Space, require_whole_vectors
from ..tensors.trees import TensorDict

MEMORY_BUDGET = 2**30  # bytes of a Krylov basis, and of graphs kept between products


class Operator(abc.ABC):
    """A matrix given by its products with vectors.

    `A @ v` takes a vector (columns,), a block of vectors (columns, k), or, where the columns are
    a model's parameters, a dict of tensors by name; where the rows are parameters as well, a dict
    comes back. `A + B`, `A - B`, `c * A`, `A.T`, `A.restrict(names)` and `A.to_scipy()` are
    operators again. The terms of a sum must be of the same parameters (OperatorError otherwise); a
    matrix of another library, which has none, takes the parameters of the other term.

    Attributes:
        shape: (rows, columns).
        dtype: of the products; vectors are converted to it.
        device: of the vectors and the products.
        resolution: relative error of a product; by default that of the dtype.
        parameters: shapes of a model's parameters by name, in the order of the vectors' entries;
            None where the columns are not parameters.
        rows_are_parameters: whether the rows are the same parameters.
        symmetric: whether the matrix equals its transpose by construction; then `A.T is A`.
    """

    shape: tuple[int, int]
    dtype: torch.dtype
    device: torch.device
    parameters: dict[str, torch.Size] | None = None
    rows_are_parameters: bool = False
    symmetric: bool = False

    @property
    def resolution(self) -> float:
        return float(torch.finfo(self.dtype).eps)

    @property
    def space(self) -> Space:
        """Of the vectors that it is multiplied with."""
        return Space(self.shape[1], self.device, self.parameters)

    @property
    def T(self) -> Operator:
        """The transpose; a class that is not symmetric overrides it."""
        if self.symmetric:
            return self
        raise NotImplementedError(
            f"{type(self).__name__} has no transpose: define `T`, or set `symmetric = True`"
        )

    @abc.abstractmethod
    def products(self, block: Tensor) -> Tensor:
        """The matrix times a block of vectors of its dtype: (columns, k) -> (rows, k)."""

    @overload
    def __matmul__(self, other: Tensor) -> Tensor: ...

    @overload
    def __matmul__(self, other: TensorDict) -> Any: ...  # a dict, or a tensor if rows are samples

    def __matmul__(self, other: Tensor | TensorDict) -> Any:
        if isinstance(other, dict):
            product = self @ self._flat(other)
            return self._named(product) if self.rows_are_parameters else product
        self.space.refuse(self._why_not(other))
        block = other.detach().to(device=self.device, dtype=self.dtype)
        if block.ndim == 1:
            return self.products(block[:, None])[:, 0]
        if block.shape[1]:
            return self.products(block)
        rows = self.space.local_size if self.rows_are_parameters else self.shape[0]
        return block.new_zeros(rows, 0)

    def _why_not(self, other: Any) -> str:
        """Why it cannot be multiplied with something; empty where it can."""
        if not isinstance(other, Tensor) or other.ndim not in (1, 2):
            got = tuple(other.shape) if isinstance(other, Tensor) else type(other).__name__
            return f"`@` takes a vector, a block of vectors or a dict; got {got}"
        local_size = self.space.local_size
        if other.shape[0] == local_size:
            return ""
        here = f" ({local_size} entries on this rank)" if self.space.is_sharded else ""
        return (
            f"an operator of shape {self.shape} takes vectors of length {self.shape[1]}{here}; "
            f"got {other.shape[0]}"
        )

    def _flat(self, named: TensorDict) -> Tensor:
        shapes = self.parameters
        if shapes is None:
            raise OperatorError("the columns of this operator are not a model's parameters")
        fits = {name: t.shape for name, t in named.items()} == shapes
        why = (
            f"a dict must hold a tensor for each of {', '.join(shapes)}, of its shape; got "
            f"{ {name: tuple(t.shape) for name, t in named.items()} }"
        )
        self.space.refuse("" if fits else why)
        return self.space.flat({name: named[name] for name in shapes})

    def _named(self, vector: Tensor) -> TensorDict:
        return self.space.named(vector)

    def __add__(self, other: Operator) -> Operator:
        return Sum(self, other) if isinstance(other, Operator) else NotImplemented

    def __sub__(self, other: Operator) -> Operator:
        return Sum(self, Scaled(-1.0, other)) if isinstance(other, Operator) else NotImplemented

    def __mul__(self, factor: float) -> Operator:
        if isinstance(factor, Real):
            return Scaled(float(factor), self)
        return NotImplemented

    __rmul__ = __mul__

    def __neg__(self) -> Operator:
        return Scaled(-1.0, self)

    def restrict(self, names: Iterable[str]) -> Operator:
        """The block of some parameters: those of these names, and of modules of these names.

        Raises:
            OperatorError: rows and columns are not both the parameters; or a name does not exist;
                or ranks hold parts of the vectors.
        """
        return Restricted(self, tuple(names))

    def to_scipy(self) -> scipy.sparse.linalg.LinearOperator:
        """For `scipy.sparse.linalg`: NumPy in, NumPy out, in the dtype of the operator.

        Raises:
            OperatorError: ranks hold parts of its vectors.
        """
        require_whole_vectors(self.space, "SciPy")
        matrix, transposed = _NumPy(self), _NumPy(self.T)
        return scipy.sparse.linalg.LinearOperator(
            self.shape,
            dtype=torch.empty(0, dtype=self.dtype).numpy().dtype,
            matvec=matrix,
            matmat=matrix,
            rmatvec=transposed,
            rmatmat=transposed,
        )


class _NumPy:
    """Products of arrays."""

    def __init__(self, operator: Operator) -> None:
        self._operator = operator

    def __call__(self, array: Any) -> Any:
        return (self._operator @ torch.tensor(array)).cpu().numpy()


class Sum(Operator):
    """A + B."""

    def __init__(self, first: Operator, second: Operator) -> None:
        if first.shape != second.shape or first.device != second.device:
            raise OperatorError(
                f"a sum needs operators of one shape on one device; got {first.shape} on "
                f"{first.device} and {second.shape} on {second.device}"
            )
        named = [part for part in (first, second) if part.parameters is not None]
        if len(named) == 2 and _sides(first) != _sides(second):
            raise OperatorError(
                f"a sum needs operators of the same parameters in the same order; got "
                f"{_described(first)} and {_described(second)}"
            )
        self._first, self._second = first, second
        self.shape, self.device = first.shape, first.device
        self.dtype = torch.promote_types(first.dtype, second.dtype)
        if named:  # a matrix of another library is taken to be of the same parameters
            self.parameters = named[0].parameters
            self.rows_are_parameters = named[0].rows_are_parameters

    @property
    def resolution(self) -> float:
        return max(self._first.resolution, self._second.resolution)

    @property
    def space(self) -> Space:
        named = self._first if self._first.parameters is not None else self._second
        return named.space

    @property
    def T(self) -> Operator:
        return Sum(self._first.T, self._second.T)

    def products(self, block: Tensor) -> Tensor:
        first, second = (part @ block for part in (self._first, self._second))
        total: Tensor = first.to(self.dtype) + second.to(self.dtype)
        return total


def _sides(operator: Operator) -> tuple[list[tuple[str, torch.Size]], bool]:
    """The parameters of the columns and of the rows."""
    return list((operator.parameters or {}).items()), operator.rows_are_parameters


def _described(operator: Operator) -> str:
    rows = "" if operator.rows_are_parameters else " with other rows"
    return f"one of {', '.join(operator.parameters or {})}{rows}"


class Scaled(Operator):
    """c A."""

    def __init__(self, factor: float, operator: Operator) -> None:
        self._factor, self._operator = float(factor), operator
        self.shape, self.dtype, self.device = operator.shape, operator.dtype, operator.device
        self.parameters = operator.parameters
        self.rows_are_parameters = operator.rows_are_parameters

    @property
    def resolution(self) -> float:
        return self._operator.resolution

    @property
    def space(self) -> Space:
        return self._operator.space

    @property
    def T(self) -> Operator:
        return Scaled(self._factor, self._operator.T)

    def products(self, block: Tensor) -> Tensor:
        return self._operator.products(block).mul(self._factor)


class Restricted(Operator):
    """A block of rows and columns of the same parameters."""

    def __init__(self, operator: Operator, names: tuple[str, ...]) -> None:
        shapes = operator.parameters
        require_whole_vectors(operator.space, "a block")
        if shapes is None or not operator.rows_are_parameters:
            raise OperatorError("only an operator that is square in parameters can be restricted")
        for name in names:
            if not any(_within(own, name) for own in shapes):
                raise OperatorError(
                    f"there is no trainable parameter or module {name!r}; the parameters are "
                    f"{', '.join(shapes)}"
                )
        kept = [any(_within(own, name) for name in names) for own in shapes]
        sizes = torch.tensor([shape.numel() for shape in shapes.values()])
        self._operator, self._names = operator, names
        self._index = torch.tensor(kept).repeat_interleave(sizes).nonzero()[:, 0]
        self._index = self._index.to(operator.device)
        self.parameters = {own: shapes[own] for own, has in zip(shapes, kept, strict=True) if has}
        self.shape = len(self._index), len(self._index)
        self.dtype, self.device = operator.dtype, operator.device
        self.rows_are_parameters = True

    @property
    def resolution(self) -> float:
        return self._operator.resolution

    @property
    def T(self) -> Operator:
        return Restricted(self._operator.T, self._names)

    def products(self, block: Tensor) -> Tensor:
        whole = block.new_zeros(self._operator.shape[1], block.shape[1])
        whole[self._index] = block
        product: Tensor = self._operator.products(whole)
        return product[self._index]


def _within(parameter: str, name: str) -> bool:
    return parameter == name or name == "" or parameter.startswith(f"{name}.")
