"""Per-sample squared norms and the mean gradient of one batch: our engines beside other libraries.

    python benchmarks/per_sample.py --markdown
    python benchmarks/per_sample.py --models cnn --methods ours-auto opacus-hooks --rounds 5

Time: in every round each method runs for a tenth of a second, at least once, in an order drawn
anew; its median call over that of a plain forward and backward pass of the mean loss; the median of
the rounds. What is done once per model is not timed: choosing an engine, which has a row of its
own, and wrapping the model.

Memory: peak resident set of a fresh process over what it holds just before the first call, again as
a ratio to the plain pass. Read from /proc: `ru_maxrss` starts at the peak of the parent process.

Before it is timed, each method's numbers are held to those of a loop over single samples.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import measure
import torch
from methods import METHODS, Found, Prepare, Run, loop, plain
from tasks import MODELS, Task, make
from torch.utils import benchmark

from gradnoise.tensors.trees import select

TOLERANCE = 1e-3  # relative error beyond which a method is wrong
MIB = 2**20
LIBRARIES = ("opacus", "backpack-for-pytorch", "transformers")


@dataclass(frozen=True)
class Result:
    """What became of a method on a model.

    Args:
        value: seconds or bytes.
        ratio: in plain passes.
        spread: interquartile range of the ratio over its median.
        note: what people should know.
        state: instead of a value, "–" or "wrong".
    """

    value: float = math.nan
    ratio: float = math.nan
    spread: float = 0.0
    note: str = ""
    state: str = ""


def times(model: str, methods: Sequence[str], rounds: int) -> dict[str, Result]:
    """Medians over interleaved rounds, of "plain" too."""
    results, ready = {}, {}
    with ExitStack() as stack:
        truth = loop(make(model), stack).run()
        ready["plain"] = plain(make(model), stack).run
        ready["plain"]()
        for name in methods:
            results[name], run = _checked(METHODS[name], make(model), stack, truth)
            if run is not None:
                ready[name] = run
        taken = measure.interleaved(ready, rounds)
    results["plain"] = Result()
    for name, own in taken.items():
        ratios = [t / unit for t, unit in zip(own, taken["plain"], strict=False)]
        spread = benchmark.Measurement(1, ratios, benchmark.TaskSpec("", "")).iqr
        ratio = statistics.median(ratios)
        value = statistics.median(own)
        results[name] = replace(results[name], value=value, ratio=ratio, spread=spread / ratio)
    return results


def _checked(
    prepare: Prepare, task: Task, stack: ExitStack, truth: Found
) -> tuple[Result, Run | None]:
    """Run it a first time and hold it to the loop."""
    try:
        method = prepare(task, stack)
        found = method.run()
    except Exception as error:  # other people's code on models it may not know
        return Result(state="–", note=measure.reason(error)), None
    off = _deviation(found, truth) if method.checked else 0.0
    if not off <= TOLERANCE:
        return Result(state="wrong", note=f"off by {off:.2g} of the loop's numbers"), None
    return Result(note=method.note), method.run


def _deviation(found: Found, truth: Found) -> float:
    """Relative error of the n squared norms, or of the mean gradient, each as one vector.

    Not the largest over the samples: where two entries of a pooling window are equal up to
    rounding, another may win in a batch than alone.
    """
    means = [torch.cat([g.flatten() for g in mean]) for mean in (found[1], truth[1])]
    pairs = ((found[0].double(), truth[0].double()), means)
    return max(float((own - right).norm() / right.norm()) for own, right in pairs)


def memory(model: str, method: str, threads: int) -> Result:
    """Bytes of the peak above what was there before the first call, in a fresh process."""
    hidden = ["--worker", model, method, "--threads", str(threads)]
    answer = measure.fresh([__file__, *hidden])
    return Result(value=answer["bytes"]) if "bytes" in answer else Result(**answer)


def work(model: str, method: str) -> dict[str, Any]:
    """Measure one method in this process."""
    task = make(model)
    with ExitStack() as stack:
        plain(replace(task, batch=select(task.batch, slice(0, 2))), stack).run()
        run = {"plain": plain, **METHODS}[method](task, stack).run
        return {"bytes": measure.growth(run)}


def table(
    results: dict[str, dict[str, Result]], unit: str, scale: float, notes: measure.Notes
) -> list[list[str]]:
    """Rows of methods, columns of models."""
    rows = [
        ["", *results],
        [f"plain, {unit}", *(measure.rounded(r["plain"].value * scale) for r in results.values())],
    ]
    names = [name for name in next(iter(results.values())) if name != "plain"]
    for name in names:
        own = [found[name] for found in results.values()]
        rows.append(
            [name, *((r.state or measure.rounded(r.ratio)) + notes.mark(r.note) for r in own)]
        )
    return rows


def all_times(models: list[str], methods: list[str], rounds: int) -> dict[str, dict[str, Result]]:
    found = {}
    for model in models:
        print(f"time: {model}", file=sys.stderr)
        found[model] = times(model, methods, rounds)
    return found


def all_memory(
    models: list[str], methods: list[str], threads: int, known: dict[str, dict[str, Result]]
) -> dict[str, dict[str, Result]]:
    """Of methods that are not known to fail."""
    found: dict[str, dict[str, Result]] = {}
    for model in models:
        print(f"memory: {model}", file=sys.stderr)
        unit = memory(model, "plain", threads)
        found[model] = {"plain": unit}
        for name in methods:
            before = known.get(model, {}).get(name, Result())
            result = before if before.state else memory(model, name, threads)
            found[model][name] = replace(result, ratio=result.value / unit.value)
    return found


def parsed() -> argparse.Namespace:
    parser = measure.common_options(__doc__, MODELS)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument(
        "--tables", nargs="+", choices=("time", "memory"), default=["time", "memory"]
    )
    parser.add_argument("--rounds", type=int, default=15, help="of the time table")
    return parser.parse_args()


def main() -> None:
    asked = parsed()
    warnings.filterwarnings("ignore")  # of the libraries, about hooks and fallbacks
    torch.set_num_threads(asked.threads)
    if asked.worker:
        print(json.dumps(work(*asked.worker)))
        return
    notes, found = measure.Notes(), {}
    if "time" in asked.tables:
        found = all_times(asked.models, asked.methods, asked.rounds)
        spread = max(r.spread for results in found.values() for r in results.values())
        title = (
            f"time in plain passes, medians of {asked.rounds} interleaved rounds "
            f"(interquartile ranges up to {spread:.0%}), {asked.threads} threads"
        )
        measure.show(title, table(found, "ms", 1e3, notes), asked.markdown)
    if "memory" in asked.tables:
        found = all_memory(asked.models, asked.methods, asked.threads, found)
        title = "growth of peak memory, fresh processes, in that of plain passes"
        measure.show(title, table(found, "MiB", 1 / MIB, notes), asked.markdown)
    print(
        *(f"[{number}] {text}" for number, text in enumerate(notes.texts, 1)),
        measure.versions(*LIBRARIES),
        sep="\n",
    )


if __name__ == "__main__":
    main()
