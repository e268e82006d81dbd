"""Products with the Hessian of one batch and its largest eigenvalue λ: ours beside other libraries.

    python benchmarks/curvature.py --markdown
    python benchmarks/curvature.py --models mlp --libraries ours curvlinops --rounds 5

Product: in every round each method runs for a tenth of a second, at least once, in an order drawn
anew; its median call over that of a plain forward and backward pass of the mean loss; the median of
the rounds. What is done once per model is not timed. Each product is held to that of two backward
passes in float64 first, along the gradient.

λ: from the model and a random start, operator and checks included, to a residual ‖Hv - λv‖ of
1e-3 λ, as near to that as a method's own stopping comes; over a plain pass timed just before. Ours
and eigsh start from the same vector; the others draw their own. Each seed has an order of its own;
products are counted around each method's own operator. The residual is computed anew by a product
in float64, and the error is that to λ in float64, found to 1e-9 by our Lanczos and by eigsh, and by
a dense decomposition where the model is small.

Memory: peak resident set of a fresh process that finds λ once, over what it holds just before.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tasks
import torch
from hessians import LIBRARIES, LIMIT, PRODUCTS, TOL, TOPS, Top, doubled, exact, flat
from measure import (
    Notes,
    Run,
    common_options,
    fresh,
    growth,
    interleaved,
    reason,
    rounded,
    seconds,
    show,
    typical,
    versions,
)
from methods import plain
from scipy.sparse.linalg import eigsh
from tasks import Task
from torch import Tensor, nn
from torch.utils import benchmark

from gradnoise.linalg.lanczos import lanczos
from gradnoise.operators.hessian import Hessian
from gradnoise.problem.losses.criterion import supervised
from gradnoise.problem.state.guard import differentiable_kernels
from gradnoise.tensors.trees import select

OFF = 1e-2  # relative error beyond which a product, or λ, is another one's
REFERENCE = 1e-9  # residual of λ in float64
AGREE = 1e-8  # between ways to λ in float64
DENSE = 4000  # parameters of which the matrix is formed
MIB = 2**20
PACKAGES = ("scipy", "curvlinops-for-pytorch", "pyhessian", "hessian-eigenthings")
MATH = (
    "given the math backend of scaled_dot_product_attention, whose fused kernels, which the plain "
    "pass runs, have no second derivative"
)


def small() -> Task:
    """64-32-10, whose Hessian can be formed."""
    model = nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10))
    batch = torch.randn(128, 64), torch.randint(10, (128,))
    return Task(model, supervised(nn.CrossEntropyLoss()), batch)


MODELS: dict[str, Callable[[], Task]] = {
    "small": small,
    **{name: tasks.MODELS[name] for name in ("mlp", "cnn", "gpt")},
}


def make(model: str) -> Task:
    """The same parameters and data each time."""
    torch.manual_seed(0)
    return MODELS[model]()


@dataclass(frozen=True)
class Result:
    """What became of a method on a model.

    Args:
        value: seconds or bytes.
        ratios: in plain passes, one per round or seed.
        products, residuals, errors: of λ, one per seed.
        notes: what people should know.
        state: instead of numbers, "–" or "wrong".
    """

    value: float = math.nan
    ratios: Sequence[float] = (math.nan,)
    products: Sequence[int] = ()
    residuals: Sequence[float] = ()
    errors: Sequence[float] = ()
    notes: Sequence[str] = ()
    state: str = ""


Results = dict[str, dict[str, Result]]  # by model and method


def notes_on(model: str, method: str) -> list[str]:
    """What is the same for every table."""
    exempt = method.startswith("ours") or method.endswith("finite")
    return [MATH] if model == "gpt" and not exempt else []


def times(model: str, methods: Sequence[str], rounds: int) -> dict[str, Result]:
    """Of products: medians over interleaved rounds, of "plain" too."""
    results, ready = {}, {}
    with ExitStack() as stack:
        ready["plain"] = plain(make(model), stack).run
        task = make(model)
        vector = flat(ready["plain"]())  # along the gradient, near the upper end of the spectrum
        vector /= vector.norm()
        truth = exact(task)(vector)
        for name in methods:
            results[name], run = _checked(model, name, vector, truth)
            if run is not None:
                ready[name] = run
        taken = interleaved(ready, rounds)
    results["plain"] = Result()
    for name, own in taken.items():
        ratios = [t / unit for t, unit in zip(own, taken["plain"], strict=False)]
        results[name] = replace(results[name], value=statistics.median(own), ratios=ratios)
    return results


def _checked(model: str, name: str, vector: Tensor, truth: Tensor) -> tuple[Result, Run | None]:
    """Build the operator and hold a first product to the oracle's."""
    task, notes = make(model), notes_on(model, name)
    kernels = _kernels(model, name)
    try:
        with kernels(task.model):
            product = PRODUCTS[name](task)
            off = _relative(flat(product(vector)).double() - truth, truth)
    except Exception as error:  # other people's code on models it may not know
        return Result(state="–", notes=[reason(error)]), None
    if not off <= OFF:
        return Result(state="wrong", notes=[f"off by {off:.2g} of the product in float64"]), None

    def run() -> Any:
        with kernels(task.model):
            return product(vector)

    return Result(notes=notes), run


def _kernels(model: str, name: str) -> Callable[[nn.Module], Any]:
    """Whether peers are given kernels with second derivatives; ours see to it themselves."""
    return differentiable_kernels if notes_on(model, name) else lambda _: ExitStack()


def _relative(gap: Tensor, to: Tensor) -> float:
    return float(gap.norm() / to.norm())


def tops(model: str, methods: Sequence[str], seeds: int) -> dict[str, Result]:
    """λ from a random start, of each seed."""
    found: dict[str, list[tuple[float, float, Top]]] = {name: [] for name in methods}
    failed: dict[str, Result] = {}
    order, shuffle = list(methods), random.Random(0).shuffle
    with ExitStack() as stack:
        unit = plain(make(model), stack).run
        unit()
        for name in methods:
            warm_up(name)
        for seed in range(seeds):
            shuffle(order)
            for name in order:
                if name not in failed:
                    try:
                        found[name].append((typical(unit), *_top(model, name, seed)))
                    except Exception as error:
                        failed[name] = Result(state="–", notes=[reason(error)])
    multiply, known = exact(make(model)), reference(model)
    return {
        "plain": Result(value=typical(unit), notes=known.notes),
        **{
            name: failed.get(name) or _judged(model, name, own, multiply, known.value)
            for name, own in found.items()
        },
    }


def warm_up(method: str) -> None:
    """What a process does once, imports above all, is not measured."""
    with suppress(Exception):  # which comes again when it is measured
        TOPS[method](make("small"), 0)


def _top(model: str, name: str, seed: int) -> tuple[float, Top]:
    """Seconds, and λ."""
    task, answers = make(model), list[Top]()
    with _kernels(model, name)(task.model):
        taken = seconds(lambda: answers.append(TOPS[name](task, seed)))
    return taken, answers[0]


def _judged(
    model: str,
    name: str,
    runs: list[tuple[float, float, Top]],
    multiply: Callable[[Tensor], Tensor],
    truth: float,
) -> Result:
    """Residuals and errors in float64."""
    residuals, errors, notes = [], [], notes_on(model, name)
    for _, _, top in runs:
        vector = top.vector.double() / top.vector.double().norm()
        residuals.append(float((multiply(vector) - top.value * vector).norm()) / abs(top.value))
        errors.append(abs(top.value - truth) / abs(truth))
    if max(errors) > OFF:
        given = ", ".join(f"{top.value:.4g}" for _, _, top in runs)
        notes.append(f"gave {given} where λ is {truth:.4g}")
    if any(top.products >= LIMIT for _, _, top in runs):
        notes.append(f"stopped at {LIMIT} products")
    return Result(
        value=statistics.median(taken for _, taken, _ in runs),
        ratios=[taken / unit for unit, taken, _ in runs],
        products=[top.products for _, _, top in runs],
        residuals=residuals,
        errors=errors,
        notes=notes,
    )


def reference(model: str) -> Result:
    """λ in float64 by our Lanczos, held to eigsh and, of a small model, to a dense one."""
    task = make(model)
    twin = doubled(task)
    hessian = Hessian(twin.model, twin.losses, [twin.batch])
    own = float(lanczos(hessian, tol=REFERENCE, max_iterations=1000).values[0])
    size = hessian.shape[0]
    v0 = np.random.default_rng(1).standard_normal(size)
    others = {"eigsh": eigsh(hessian.to_scipy(), k=1, which="LA", tol=REFERENCE, v0=v0)[0][0]}
    if size <= DENSE:
        rows = torch.stack([*map(exact(task), torch.eye(size))])
        others["dense"] = torch.linalg.eigvalsh((rows + rows.T) / 2)[-1]
    gaps = {name: abs(float(value) - own) / abs(own) for name, value in others.items()}
    wrong = [
        f"the reference λ is {gap:.1g} off {name}" for name, gap in gaps.items() if gap > AGREE
    ]
    return Result(value=own, notes=wrong)


def memory(model: str, method: str, threads: int) -> Result:
    """Bytes of the peak above what was there before the first call, in a fresh process."""
    answer = fresh([__file__, "--worker", model, method, "--threads", str(threads)])
    if "bytes" in answer:
        return Result(value=answer["bytes"])
    return Result(state=answer["state"], notes=[answer["note"]])


def work(model: str, method: str) -> dict[str, Any]:
    """Measure one method in this process."""
    task = make(model)
    with ExitStack() as stack:
        few = select(task.batch, slice(0, 2))
        plain(replace(task, batch=few), stack).run()
        if method == "plain":
            return {"bytes": growth(plain(task, stack).run)}
        warm_up(method)
        with _kernels(model, method)(task.model):
            return {"bytes": growth(lambda: TOPS[method](task, 0))}


def all_memory(models: list[str], methods: list[str], threads: int) -> Results:
    found: Results = {}
    for model in models:
        print(f"memory: {model}", file=sys.stderr)
        own = {name: memory(model, name, threads) for name in ("plain", *methods)}
        unit = own["plain"].value
        found[model] = {name: replace(r, ratios=[r.value / unit]) for name, r in own.items()}
    return found


def passes(result: Result) -> str:
    return rounded(statistics.median(result.ratios))


def products(result: Result) -> str:
    """Median, and range where there is one."""
    low, high = min(result.products), max(result.products)
    middle = f"{statistics.median(result.products):.0f}"
    return middle if low == high else f"{middle} ({low} to {high})"


def worst_residual(result: Result) -> str:
    return f"{max(result.residuals):.1e}"


def worst_error(result: Result) -> str:
    return f"{max(result.errors):.1e}"


def table(
    results: Results, cell: Callable[[Result], str], notes: Notes, unit: tuple[str, float] | None
) -> list[list[str]]:
    """Rows of methods, columns of models; `unit` names and scales the row of the plain pass."""
    rows = [["", *results]]
    if unit:
        plains = [own["plain"] for own in results.values()]
        cells = (_marked(rounded(r.value * unit[1]), r, notes) for r in plains)
        rows.append([f"plain, {unit[0]}", *cells])
    for name in next(iter(results.values())):
        if name != "plain":
            own = [found[name] for found in results.values()]
            rows.append([name, *(_marked(r.state or cell(r), r, notes) for r in own)])
    return rows


def _marked(text: str, result: Result, notes: Notes) -> str:
    return text + "".join(map(notes.mark, result.notes))


def show_products(asked: argparse.Namespace, notes: Notes) -> None:
    found = {}
    for model in asked.models:
        print(f"products: {model}", file=sys.stderr)
        found[model] = times(model, _of(PRODUCTS, asked.libraries), asked.rounds)
    spread = max(_spread(r.ratios) for own in found.values() for r in own.values() if not r.state)
    title = (
        f"a product with the Hessian in plain passes, medians of {asked.rounds} interleaved rounds "
        f"(interquartile ranges up to {spread:.0%}), {asked.threads} threads"
    )
    show(title, table(found, passes, notes, ("ms", 1e3)), asked.markdown)


def _spread(ratios: Sequence[float]) -> float:
    """Interquartile range over the median."""
    own = benchmark.Measurement(1, list(ratios), benchmark.TaskSpec("", ""))
    return own.iqr / own.median


def show_tops(asked: argparse.Namespace, notes: Notes) -> None:
    found = {}
    for model in asked.models:
        print(f"λ: {model}", file=sys.stderr)
        found[model] = tops(model, _of(TOPS, asked.libraries), asked.seeds)
    for title, cell, unit in (
        (f"λ to a residual of {TOL:g} in plain passes, median", passes, ("ms", 1e3)),
        ("products for it, median", products, None),
        ("‖Hv - λv‖/|λ| reached, in float64, the worst", worst_residual, None),
        ("relative error of λ, the worst", worst_error, None),
    ):
        rows = table(found, cell, notes, unit)
        show(f"{title} of {asked.seeds} random starts", rows, asked.markdown)


def show_memory(asked: argparse.Namespace, notes: Notes) -> None:
    found = all_memory(asked.models, _of(TOPS, asked.libraries), asked.threads)
    title = "growth of peak memory in finding λ, fresh processes, in that of plain passes"
    show(title, table(found, passes, notes, ("MiB", 1 / MIB)), asked.markdown)


def _of(methods: dict[str, Any], libraries: Sequence[str]) -> list[str]:
    return [name for name in methods if name.split("-")[0] in libraries]


TABLES = {"products": show_products, "top": show_tops, "memory": show_memory}


def parsed() -> argparse.Namespace:
    parser = common_options(__doc__, MODELS)
    parser.add_argument("--libraries", nargs="+", choices=LIBRARIES, default=list(LIBRARIES))
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=list(TABLES))
    parser.add_argument("--rounds", type=int, default=15, help="of the table of products")
    parser.add_argument("--seeds", type=int, default=3, help="random starts of the tables of λ")
    return parser.parse_args()


def main() -> None:
    asked = parsed()
    warnings.filterwarnings("ignore")  # of the libraries, about reference cycles and vmap
    torch.set_num_threads(asked.threads)
    if asked.worker:
        print(json.dumps(work(*asked.worker)))
        return
    notes = Notes()
    for name in asked.tables:
        TABLES[name](asked, notes)
    lines = (f"[{number}] {text}" for number, text in enumerate(notes.texts, 1))
    print(*lines, versions(*PACKAGES), sep="\n")


if __name__ == "__main__":
    main()
