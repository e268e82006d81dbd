"""What every measuring call costs, in plain forward and backward passes over the same samples.

    python benchmarks/cost.py --models mlp cnn gpt --rounds 3 --markdown

Every model has taken 20 steps of SGD. Processor seconds of this process; plain passes are timed
before and after every call, in the same micro-batches; medians. "Whole" means that the samples are
the population, "part" that they are a part of it, whose sampling errors are measured as well. The
last columns are B_noise as `gn.profile` found it. Memory is the growth of the peak in a process of
its own, in that of one plain pass.
"""

from __future__ import annotations

import json
import statistics
import time
from typing import Any

import torch
from calls import POPULATIONS, Trained, trained
from measure import Run, common_options, fresh, growth, rounded, show, versions
from tasks import MODELS, make

MICRO_BATCH = {"mlp": 256, "cnn": 256, "resnet": 128, "gpt": 64, "gpt2": 64}
CALLS = ("gn.profile", "gn.noise_scale", "gn.sharpness", "gn.gradient_moments")
SEPARATOR = "; "


def problem_of(model: str, samples: int) -> Trained:
    """The same at every call."""
    return trained(make(model), samples, MICRO_BATCH[model])


def processor_seconds(run: Run) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


def in_passes(problem: Trained, name: str, population: str, rounds: int) -> tuple[float, Any]:
    """Median cost of a call, and its last result."""
    ratios, found = [], None
    for _ in range(rounds):
        plain = [processor_seconds(problem.plain) for _ in range(2)]
        start = time.process_time()
        found = problem.call(name, population)
        taken = time.process_time() - start
        plain += [processor_seconds(problem.plain) for _ in range(2)]
        ratios.append(taken / statistics.median(plain))
    return statistics.median(ratios), found


def work(model: str, asked: str) -> dict[str, Any]:
    """Growth of the peak memory of one call, in this process."""
    samples, name, population = asked.split(SEPARATOR)
    problem = problem_of(model, int(samples))
    if name != "plain":
        return {"bytes": growth(lambda: problem.call(name, population))}
    return {"bytes": growth(problem.plain)}


def memory(model: str, samples: int, name: str, population: str) -> int:
    asked = SEPARATOR.join((str(samples), name, population))
    return int(fresh([__file__, "--worker", model, asked])["bytes"])


def main() -> None:
    parser = common_options(__doc__, MODELS)
    parser.add_argument("--samples", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory", action="store_true", help="peaks as well")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if asked.worker:
        print(json.dumps(work(*asked.worker)))
        return
    rows = [["", *asked.models]]
    cells: dict[str, list[str]] = {}
    for model in asked.models:
        problem = problem_of(model, asked.samples)
        cells.setdefault("plain, ms", []).append(rounded(1e3 * processor_seconds(problem.plain)))
        unit = memory(model, asked.samples, "plain", "whole") if asked.memory else 0
        for name in CALLS:
            for population in POPULATIONS:
                ratio, found = in_passes(problem, name, population, asked.rounds)
                label = f"{name}, {population}"
                cells.setdefault(label, []).append(rounded(ratio))
                if name == "gn.profile":
                    cells.setdefault(f"B_noise, {population}", []).append(str(found.noise_scale))
                    if asked.memory:
                        peak = memory(model, asked.samples, name, population) / unit
                        cells.setdefault(f"memory, {population}", []).append(rounded(peak))
    rows += [[label, *own] for label, own in cells.items()]
    title = f"in plain passes over {asked.samples} samples, medians of {asked.rounds}, one thread"
    show(title, rows, asked.markdown)
    print(versions())


if __name__ == "__main__":
    main()
