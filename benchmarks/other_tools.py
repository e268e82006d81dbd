"""What other libraries answer on five small models: `python benchmarks/other_tools.py`.

Every cell of the two tables was run. Squared norms of single samples are compared with one backward
pass for each sample, the largest eigenvalue of the Hessian with ARPACK on products in float64 that
no library had a part in. The tables are those of docs/other_tools.md; it takes a minute, after
pip install '.[test,bench]'.
"""

from __future__ import annotations

import contextlib
import io
import math
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from importlib.metadata import version

import numpy as np
import torch
from hessians import curvlinops_top, eigenthings_lanczos, exact, pyhessian_top
from methods import METHODS, loop
from scipy.sparse.linalg import LinearOperator, eigsh
from tasks import GPT, Residual, Task
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

import gradnoise as gn
from gradnoise.problem.losses.criterion import supervised
from gradnoise.tensors.trees import Batch, sample_count

RIGHT = 1e-3  # relative error of what is called right
REFUSED = "refused"
SAMPLES, PARTS = 48, 2  # the eigenvalue is of the mean loss of two batches
NORMS: dict[str, Callable[[Task, ExitStack], Tensor]] = {
    "gradnoise": lambda task, _: gn.per_sample_sq_norms(task.model, task.losses, task.batch),
    "BackPACK": lambda task, stack: METHODS["backpack-l2"](task, stack).run()[0],
    "Opacus, hooks": lambda task, stack: METHODS["opacus-hooks"](task, stack).run()[0],
    "Opacus, ghost": lambda task, stack: METHODS["opacus-ghost"](task, stack).run()[0],
    "torch.func": lambda task, stack: METHODS["vmap"](task, stack).run()[0],
}
EIGENVALUES: dict[str, Callable[[Task], float]] = {
    "gradnoise": lambda task: ours(task),
    "curvlinops": lambda task: curvlinops_top(task, 0, batches=parts(task)).value,
    "PyHessian": lambda task: pyhessian_top(RIGHT, task, 0, batches=parts(task)).value,
    "PyHessian, tol=1e-6": lambda task: pyhessian_top(1e-6, task, 0, batches=parts(task)).value,
    "hessian-eigenthings": lambda task: eigenthings_lanczos(task, 0, batches=parts(task)).value,
}


class Recurrent(nn.Module):
    """An LSTM whose last output is classified."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.out = nn.LSTM(4, 8, batch_first=True), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.lstm(x)[0][:, -1])


def classifier(model: nn.Module, *shape: int) -> Task:
    """Random inputs in three classes."""
    batch = torch.randn(SAMPLES, *shape), torch.randint(3, (SAMPLES,))
    return Task(model, supervised(nn.CrossEntropyLoss()), batch)


def mlp() -> Task:
    return classifier(nn.Sequential(nn.Linear(10, 16), nn.ReLU(), nn.Linear(16, 3)), 10)


def batch_norm() -> Task:
    """In training mode."""
    body = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    return classifier(nn.Sequential(*body, nn.Linear(8, 3)), 3, 8, 8)


def residual() -> Task:
    body = nn.Conv2d(3, 8, 3), Residual(8, 8, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    return classifier(nn.Sequential(*body, nn.Linear(8, 3)), 3, 8, 8)


def recurrent() -> Task:
    return classifier(Recurrent(), 6, 4)


def transformer() -> Task:
    """LayerNorm, attention, and a head that is tied to the embedding."""

    def losses(model: nn.Module, batch: Batch) -> Tensor:
        logits = model(batch[0]).transpose(1, 2)
        return F.cross_entropy(logits, batch[1], reduction="none").mean(1)

    ids = torch.randint(20, (SAMPLES, 9))
    model = GPT(20, 8, 16, heads=2, layers=1)
    return Task(model, losses, (ids[:, :-1].clone(), ids[:, 1:].clone()))


MODELS = {
    "MLP": mlp,
    "CNN, batch norm": batch_norm,
    "residual, group norm": residual,
    "LSTM": recurrent,
    "transformer, tied head": transformer,
}
COUPLED = ("CNN, batch norm",)  # there is no gradient of one sample


def parts(task: Task) -> list[Batch]:
    """The batches, as a loader gives them."""
    return list(zip(*(tensor.chunk(PARTS) for tensor in task.batch), strict=True))


def ours(task: Task) -> float:
    """With batch normalisation every batch is a group."""
    return float(gn.sharpness(task.model, task.losses, parts(task), tol=RIGHT).values[0])


def made(model: str) -> Task:
    """The same parameters and data each time."""
    torch.manual_seed(0)
    return MODELS[model]()


def true_norms(model: str) -> Tensor | None:
    """By one backward pass for each sample; None where a sample has no gradient of its own."""
    return None if model in COUPLED else loop(made(model), ExitStack()).run()[0]


def true_eigenvalue(model: str) -> float:
    """By ARPACK, in float64."""
    task = made(model)
    products = [exact(replace(task, batch=part)) for part in parts(task)]

    def product(vector: np.ndarray) -> np.ndarray:
        own = torch.as_tensor(vector.reshape(-1))
        return torch.stack([each(own) for each in products]).mean(0).numpy()

    size = sum(p.numel() for p in task.model.parameters())
    matrix = LinearOperator((size, size), product, dtype=np.float64)
    return float(eigsh(matrix, k=1, which="LA", tol=1e-8)[0][0])


def norms_cell(tool: str, model: str) -> str:
    """How far the tool is from the truth, or what it said."""
    truth = true_norms(model)

    def error() -> float:
        with ExitStack() as stack:
            found = NORMS[tool](made(model), stack).detach()
        assert len(found) == sample_count(made(model).batch)
        return float("nan") if truth is None else float((found / truth - 1).abs().max())

    return _cell(error)


def eigenvalue_cell(tool: str, model: str) -> str:
    truth = true_eigenvalue(model)
    return _cell(lambda: abs(EIGENVALUES[tool](made(model)) / truth - 1))


def _cell(error: Callable[[], float]) -> str:
    """With the attention that a library meets; where it refuses, with one that has derivatives."""
    found = _tried(error)
    if found.startswith(REFUSED):
        with sdpa_kernel(SDPBackend.MATH):
            again = _tried(error)
        found = found if again.startswith(REFUSED) else f"{again}, with attention's math backend"
    return found


def _tried(error: Callable[[], float]) -> str:
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            found = error()
        except Exception as refusal:  # each library has its own
            first = str(refusal).strip().split("\n")[0].replace("|", "/")
            return f"{REFUSED}: {type(refusal).__name__}, {first[:70]}"
    if math.isnan(found):
        return "numbers, though a sample has no gradient"
    return "right" if found <= RIGHT else f"off by {found:.1%}"


def table(title: str, tools: list[str], cell: Callable[[str, str], str]) -> str:
    head = [f"| {title} | " + " | ".join(tools) + " |", "|" + "---|" * (len(tools) + 1)]
    rows = [f"| {m} | " + " | ".join(cell(tool, m) for tool in tools) + " |" for m in MODELS]
    return "\n".join(head + rows)


def main() -> None:
    torch.set_num_threads(1)
    packages = ("torch", "backpack-for-pytorch", "opacus", "curvlinops-for-pytorch", "pyhessian")
    print(", ".join(f"{name} {version(name)}" for name in (*packages, "hessian-eigenthings")), "\n")
    print(table("norms of single samples", list(NORMS), norms_cell), "\n")
    print(table("largest eigenvalue of H", list(EIGENVALUES), eigenvalue_cell))


if __name__ == "__main__":
    main()
