"""Is the largest stable rate of training what one measurement says?

python -m benchmarks.advice.stability measure               # ten problems, 2 minutes
python -m benchmarks.advice.stability measure gru --seed 1  # one of them
python -m benchmarks.advice.stability small                 # train at B = 4 from the checkpoints
python -m benchmarks.advice.stability branch                # gn.branch, other problems
python -m benchmarks.advice.stability limits                # gn.branch at every checkpoint
python -m benchmarks.advice.stability show --markdown       # the tables, from the files of results

Measured is the reference run of every problem: untrained, after 10 and 50 steps, and where
`benchmarks.advice truth` has trained on at every batch size.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from typing import Any

import torch

import gradnoise as gn
from benchmarks.measure import versions

from .branched import branched
from .data import Data
from .limits import hold
from .limits import show as show_limits
from .predictors import rounded
from .problems import ALL, PROBLEMS, Problem
from .search import SHARES, Search
from .stability_tables import RESULTS, SMALL, show
from .store import Store
from .train import State, batches, fresh, restored

EARLY = (0, 10, 50)  # steps
SLOW = ("groupnorm_cnn", "transformer", "gru", "wrong_digits_cnn")
KEPT = ("loss", "grad_sq_norm", "trace_cov", "sharpness", "curvature_noise_scale",
        "noise_scale", "simple_noise_scale")  # fmt: skip


def points(problem: Problem, search: Search, seed: int) -> Iterator[tuple[float, int, State]]:
    """Share of the run, step, and the state there."""
    batch_size, lr = problem.reference
    state, step = fresh(problem, lr, seed), 0
    source = batches(search.data, batch_size, seed, 0, (EARLY[-1] + 1) * batch_size)
    for step, batch in enumerate(source):
        if step in EARLY:
            yield 0.0, step, state
        state.optimizer.zero_grad()
        problem.loss_fn(state.model, batch).mean().backward()
        state.optimizer.step()
    for share in SHARES:
        state = restored(problem, search.checkpoint(share, seed))
        yield share, state.seen // batch_size, state


def measured(problem: Problem, seed: int, samples: int) -> dict[str, Any]:
    search, found = Search(problem, Store(problem), [seed]), []
    started = time.process_time()
    for share, step, state in points(problem, search, seed):
        if step or isinstance(state.optimizer, torch.optim.SGD):  # Adam has no metric yet
            found.append(
                {"start": share, "step": step, **numbers(problem, state, search.data, samples)}
            )
    return {
        **made(), "problem": problem.name, "seed": seed, "samples": samples,
        "seconds": round(time.process_time() - started), "points": found,
    }  # fmt: skip


def numbers(problem: Problem, state: State, data: Data, samples: int) -> dict[str, Any]:
    """What one measurement says."""
    given = state.model, problem.loss_fn, data
    size = problem.reference[0]
    p = gn.profile(*given, optimizer=state.optimizer, batch_size=size, max_samples=samples)
    found: dict[str, Any] = {"metric": p.metric}
    for name in KEPT:
        estimate = p.estimates.get(name)
        found[name] = estimate and [estimate.value, estimate.low, estimate.high]
    momentum = p.setting.momentum
    found["momentum"], landscape = momentum, p.landscape(momentum)
    found["full_batch"] = float(landscape.stable_lr)
    for name in ("mean_square", "doubling"):
        limit = getattr(landscape, f"{name}_lr")
        found[name] = {str(b): float(limit(b)) for b in problem.batch_sizes}
    critical = gn.critical_lr(*given, state.optimizer, max_samples=samples)
    found["critical"] = float(critical)
    return found


def train_small(problem: Problem) -> None:
    """At B = 4 from the checkpoints, which `benchmarks.advice truth` leaves out; one seed."""
    search, truth = Search(problem, Store(problem, SMALL), [0]), Store(problem)
    for share in SHARES:
        best = truth.facts["summary"][f"{share:g}"]["rates"]["16"]["best"]
        search.ladder(share, 4, best / 2)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["measure", "small", "branch", "limits", "show"])
    parser.add_argument("problems", nargs="*")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--markdown", action="store_true", help="tables for GitHub")
    options = parser.parse_args()
    torch.set_num_threads(1)
    RESULTS.mkdir(parents=True, exist_ok=True)
    if options.what == "show":
        show(options.markdown)
        show_limits(options.markdown)
    elif options.what == "limits":
        points = [point for problem in ALL.values() for point in hold(problem)]
        write("limits", {**made(), "points": points})
    elif options.what == "branch":
        write("branches", {**made(), "points": branched(numbers)})
    for name in options.problems or PROBLEMS:
        if options.what == "measure":
            samples = 512 if name in SLOW else 1024
            found = measured(PROBLEMS[name], options.seed, samples)
            write(f"{name}_seed{options.seed}", found)
            print(f"{name}: {found['seconds']} s", flush=True)
        elif options.what == "small" and PROBLEMS[name].slope == 1:
            train_small(PROBLEMS[name])


def made() -> dict[str, str]:
    return {
        "command": "python -m benchmarks.advice.stability " + " ".join(sys.argv[1:]),
        "versions": versions("numpy", "scikit-learn"),
        "date": time.strftime("%Y-%m-%d"),
    }


def write(name: str, found: dict[str, Any]) -> None:
    lines = ",\n".join(json.dumps(rounded(point)) for point in found["points"])
    head = json.dumps({**found, "points": []}, indent=1)
    (RESULTS / f"{name}.json").write_text(head.replace("[]", "[\n" + lines + "\n]") + "\n")


if __name__ == "__main__":
    main()
