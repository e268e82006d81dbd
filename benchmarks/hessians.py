"""Ways to products with a Hessian and to its largest eigenvalue: ours and other libraries'.

The peers get what they need to run at all and what makes them fastest: the math backend of
attention, whose fused kernels have no second derivative, and no checks before the first product.
"""

from __future__ import annotations

import copy
import functools
import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator, eigsh
from tasks import Task, library
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from gradnoise.linalg.lanczos import lanczos
from gradnoise.operators.hessian import Hessian
from gradnoise.problem.state.guard import differentiable_kernels
from gradnoise.tensors.trees import Batch, unflatten

TOL = 1e-3  # residual relative to λ that is asked for
LIMIT = 200  # products of methods that would go on
FIRST_STEPS = 10  # of hessian-eigenthings' Lanczos, doubled until it says converged

Product = Callable[[Tensor], Any]  # (P,) -> (P,), or a list of tensors by parameter


@dataclass(frozen=True)
class Top:
    """A largest eigenvalue as a method gives it.

    Args:
        value: the eigenvalue.
        vector: of any length, shape (P,).
        products: with the Hessian, counted around the method's own operator.
    """

    value: float
    vector: Tensor
    products: int


class Counted:
    """A function that counts its calls."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function, self.calls = function, 0

    def __call__(self, *inputs: Any) -> Any:
        self.calls += 1
        return self._function(*inputs)


def flat(product: Tensor | Sequence[Tensor]) -> Tensor:
    """As one vector, shape (P,)."""
    parts = [product] if isinstance(product, Tensor) else product
    return torch.cat([part.detach().reshape(-1) for part in parts])


def doubled(task: Task) -> Task:
    """The same in float64."""

    def widened(leaf: Tensor) -> Tensor:
        return leaf.double() if leaf.is_floating_point() else leaf

    model = copy.deepcopy(task.model).double()
    return replace(task, model=model, batch=tree_map(widened, task.batch))


def exact(task: Task) -> Product:
    """Two backward passes over a copy in float64, without any of our code: the oracle."""
    twin = doubled(task)
    parameters = list(twin.model.parameters())
    with differentiable_kernels(twin.model):
        loss = twin.losses(twin.model, twin.batch).mean()
        gradient = torch.autograd.grad(loss, parameters, create_graph=True)

    def product(vector: Tensor) -> Tensor:
        direction = unflatten(vector.double(), parameters)
        return flat(torch.autograd.grad(gradient, parameters, direction, retain_graph=True))

    return product


class Scores(nn.Module):
    """Logits with the classes second, as `nn.CrossEntropyLoss` takes them of sequences too."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor) -> Tensor:
        return self.model(inputs).movedim(-1, 1)


def start(size: int, seed: int) -> np.ndarray:
    """Of those that take one, so that their products can be compared."""
    return np.random.default_rng(seed).standard_normal(size).astype(np.float32)


def ours(hvp: str, task: Task) -> Hessian:
    return Hessian(task.model, task.losses, [task.batch], hvp=hvp)


def ours_product(hvp: str, task: Task) -> Product:
    return ours(hvp, task).__matmul__


def ours_top(hvp: str, task: Task, seed: int) -> Top:
    """As `gn.sharpness` does it."""
    hessian = ours(hvp, task)
    counted = hessian.products = Counted(hessian.products)
    v0 = torch.as_tensor(start(hessian.shape[0], seed))
    with hessian.problem.guard():
        pairs = lanczos(hessian, tol=TOL, v0=v0, max_iterations=LIMIT)
    return Top(float(pairs.values[0]), pairs.vectors[:, 0], counted.calls)


def curvlinops(task: Task, batches: Sequence[Batch] = ()) -> Any:
    """Of the mean over several batches of one size, or over the task's own."""
    model = Scores(task.model)
    return library("curvlinops", "bench").HessianLinearOperator(
        model,
        nn.CrossEntropyLoss(),
        list(model.parameters()),
        list(batches) or [task.batch],
        check_deterministic=False,
    )


def curvlinops_product(task: Task) -> Product:
    return curvlinops(task).__matmul__


def curvlinops_top(task: Task, seed: int, tol: float = TOL, batches: Sequence[Batch] = ()) -> Top:
    matrix = curvlinops(task, batches).to_scipy()
    counted = Counted(matrix.matvec)
    operator = LinearOperator(matrix.shape, matvec=counted, dtype=matrix.dtype)
    v0 = start(matrix.shape[0], seed)
    values, vectors = eigsh(operator, k=1, which="LA", tol=tol, v0=v0)
    return Top(float(values[0]), torch.as_tensor(vectors[:, 0]), counted.calls)


def pyhessian(task: Task, batches: Sequence[Batch] = ()) -> Any:
    model = Scores(task.model)
    data = {"dataloader": list(batches)} if batches else {"data": task.batch}
    return library("pyhessian", "bench").hessian(model, nn.CrossEntropyLoss(), cuda=False, **data)


def pyhessian_product(task: Task) -> Product:
    multiply, matrix = _pyhessian_module().hessian_vector_product, pyhessian(task)

    def product(vector: Tensor) -> Any:
        return multiply(matrix.gradsH, matrix.params, unflatten(vector, matrix.params))

    return product


def pyhessian_top(tol: float, task: Task, seed: int, batches: Sequence[Batch] = ()) -> Top:
    """Power iteration, whose `tol` is of the change of the eigenvalue.

    Products are counted on the task's own batch alone.
    """
    module = _pyhessian_module()
    original = module.hessian_vector_product
    counted = module.hessian_vector_product = Counted(original)
    torch.manual_seed(seed)
    try:
        values, vectors = pyhessian(task, batches).eigenvalues(maxIter=LIMIT, tol=tol, top_n=1)
    finally:
        module.hessian_vector_product = original
    return Top(values[0], flat(vectors[0]), counted.calls)


def _pyhessian_module() -> Any:
    library("pyhessian", "bench")
    return importlib.import_module("pyhessian.hessian")


def eigenthings(method: str, task: Task, batches: Sequence[Batch] = ()) -> Any:
    package = library("hessian_eigenthings", "bench")

    def loss(model: nn.Module, batch: Any) -> Tensor:
        return task.losses(model, batch).mean()

    return package.HessianOperator(task.model, list(batches) or [task.batch], loss, method=method)


def eigenthings_product(method: str, task: Task) -> Product:
    return eigenthings(method, task).matvec


def eigenthings_lanczos(
    task: Task, seed: int, tol: float = TOL, batches: Sequence[Batch] = ()
) -> Top:
    """Its steps are fixed before the start: twice as many, anew, until it calls them enough."""
    operator, steps = eigenthings("autograd", task, batches), FIRST_STEPS
    counted = operator.matvec = Counted(operator.matvec)
    find = functools.partial(
        library("hessian_eigenthings", "bench").lanczos, operator, k=1, tol=tol, which="LA"
    )
    found = find(max_iter=steps, seed=seed)
    while not found.converged[0] and counted.calls + 2 * steps <= LIMIT:
        steps *= 2
        found = find(max_iter=steps, seed=seed)
    return Top(float(found.eigenvalues[0]), found.eigenvectors[0], counted.calls)


def eigenthings_power(
    task: Task, seed: int, tol: float = TOL, batches: Sequence[Batch] = ()
) -> Top:
    operator = eigenthings("autograd", task, batches)
    counted = operator.matvec = Counted(operator.matvec)
    found = library("hessian_eigenthings", "bench").deflated_power_iteration(
        operator, k=1, tol=tol, max_iter=LIMIT, seed=seed
    )
    return Top(float(found.eigenvalues[0]), found.eigenvectors[0], counted.calls)


OURS = ("kept", "fresh", "forward", "finite")
PRODUCTS: dict[str, Callable[[Task], Product]] = {
    **{f"ours-{hvp}": functools.partial(ours_product, hvp) for hvp in OURS},
    "curvlinops": curvlinops_product,
    "pyhessian": pyhessian_product,
    "eigenthings": functools.partial(eigenthings_product, "autograd"),
    "eigenthings-finite": functools.partial(eigenthings_product, "finite_difference"),
}
TOPS: dict[str, Callable[[Task, int], Top]] = {
    **{f"ours-{hvp}": functools.partial(ours_top, hvp) for hvp in OURS},
    "curvlinops-eigsh": curvlinops_top,
    "pyhessian-1e-3": functools.partial(pyhessian_top, 1e-3),
    "pyhessian-1e-6": functools.partial(pyhessian_top, 1e-6),
    "eigenthings-lanczos": eigenthings_lanczos,
    "eigenthings-power": eigenthings_power,
}
LIBRARIES = ("ours", "curvlinops", "pyhessian", "eigenthings")
