"""What every measuring call costs, in plain forward and backward passes over the same samples.

    python benchmarks/cost.py --models mlp cnn gpt --rounds 3 --markdown
    python benchmarks/cost.py --calls gn.profile --peers --memory

Every model has taken 20 steps of SGD. Processor seconds of this process; plain passes are timed
before and after every call, in the same micro-batches; medians. "Whole" means that the samples are
the population, "part" that they are a part of it, whose sampling errors are measured as well.
B_noise is that of `gn.profile`. Operators are built and multiplied once.

Peers find λ to a residual of 1 % as `gn.sharpness` does, B_noise to 15 % (half an interval) as
`gn.noise_scale` does (or by 200 products: +), and norms of one micro-batch, whose plain pass is the
unit. What they find stands beside, λ and B_noise, or why they do not.

Memory is the growth of the peak in a process of its own, in that of one plain pass.
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
import sys
import time
import warnings
from typing import Any

import torch
from calls import BATCH, CALLS, POPULATIONS, SAMPLED, Trained, trained
from hessians import LIMIT, Top
from measure import Notes, Run, common_options, fresh, growth, reason, rounded, show, versions
from peers import PEERS
from tasks import MODELS, make

MICRO_BATCH = {"mlp": 256, "cnn": 256, "resnet": 128, "gpt": 64, "gpt2": 64}
SEPARATOR = "; "
PACKAGES = (
    "curvlinops-for-pytorch",
    "pyhessian",
    "hessian-eigenthings",
    "backpack-for-pytorch",
    "opacus",
)


def problem_of(model: str, samples: int) -> Trained:
    """The same at every call."""
    return trained(make(model), samples, min(MICRO_BATCH[model], samples))


def processor_seconds(run: Run) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


def in_passes(problem: Trained, run: Run, rounds: int) -> tuple[float, Any]:
    """Median cost of a call, and its last result."""
    ratios, found = [], None
    for _ in range(rounds):
        plain = [processor_seconds(problem.plain) for _ in range(2)]
        start = time.process_time()
        found = run()
        taken = time.process_time() - start
        plain += [processor_seconds(problem.plain) for _ in range(2)]
        ratios.append(taken / statistics.median(plain))
    return statistics.median(ratios), found


def prepared(problem: Trained, label: str) -> tuple[Trained, Run]:
    """What is the unit, and what is timed; models that a library wraps are copies."""
    if label in PEERS:
        peer = PEERS[label]
        unit = problem.part if peer.on_a_part else problem
        return unit, peer.prepare(unit.on("cpu"))
    name, _, population = label.partition(", ")
    return problem, functools.partial(problem.call, name, population or "whole")


def labels(asked: argparse.Namespace) -> list[str]:
    own = [
        f"{name}, {population}" if name in SAMPLED else name
        for name in asked.calls
        for population in (asked.populations if name in SAMPLED else ("",))
    ]
    return own + (list(PEERS) if asked.peers else [])


def time_of(problem: Trained, label: str, rounds: int, notes: Notes) -> tuple[str, Any]:
    """A cell, and what was found."""
    try:
        unit, run = prepared(problem, label)
        if label in PEERS:
            run()  # imports, and code that is compiled at the first call
        ratio, found = in_passes(unit, run, rounds)
    except Exception as error:  # other people's code on models it may not know, or no such number
        return "–" + notes.mark(reason(error)), None
    return rounded(ratio) + beside(found, label), found


def beside(found: Any, label: str) -> str:
    """What a peer found."""
    if isinstance(found, Top):
        return f" (λ {found.value:.3g}{', ' + str(found.products) if found.products else ''})"
    if label.startswith("B_noise"):
        value, draws = found
        return f" ({value:.3g}, {draws}{'+' if draws == LIMIT else ''})"
    return ""


def work(model: str, asked: str) -> dict[str, Any]:
    """Growth of the peak memory of one call, in this process."""
    samples, label = asked.split(SEPARATOR)
    problem = problem_of(model, int(samples))
    if label in ("plain", "part"):
        return {"bytes": growth((problem.part if label == "part" else problem).plain)}
    if label in PEERS and PEERS[label].on_a_part:
        prepared(problem_of(model, BATCH), label)[1]()  # imports are no memory of the call
    return {"bytes": growth(prepared(problem, label)[1])}


@functools.cache
def peak(model: str, samples: int, label: str) -> dict[str, Any]:
    """Of one call in a fresh process."""
    return fresh([__file__, "--worker", model, SEPARATOR.join((str(samples), label))])


def memory(model: str, samples: int, label: str, unit: str, notes: Notes) -> str:
    """A cell."""
    found, plain = peak(model, samples, label), peak(model, samples, unit)
    if "bytes" not in found:
        return "–" + notes.mark(found["note"])
    return rounded(found["bytes"] / plain["bytes"])


def parsed() -> argparse.Namespace:
    parser = common_options(__doc__, MODELS)
    parser.add_argument("--samples", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--calls", nargs="*", choices=CALLS, default=list(CALLS))
    parser.add_argument("--populations", nargs="+", choices=POPULATIONS, default=list(POPULATIONS))
    parser.add_argument("--peers", action="store_true", help="other libraries as well")
    parser.add_argument("--memory", action="store_true", help="peaks as well")
    return parser.parse_args()


def main() -> None:
    asked = parsed()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")  # of the libraries
    if asked.worker:
        print(json.dumps(work(*asked.worker)))
        return
    rows, peaks, notes = [["", *asked.models]], [["", *asked.models]], Notes()
    problems = {model: problem_of(model, asked.samples) for model in asked.models}
    plain = (1e3 * processor_seconds(problem.plain) for problem in problems.values())
    rows.append(["plain, ms", *map(rounded, plain)])
    for label in labels(asked):
        own = [time_of(p, label, asked.rounds, notes) for p in problems.values()]
        print(label, *(cell for cell, _ in own), sep=" | ", file=sys.stderr)
        rows.append([label, *(cell for cell, _ in own)])
        if label.startswith("gn.profile"):
            rows.append(
                [
                    f"B_noise, {label.split(', ')[1]}",
                    *(str(found.noise_scale) if found else "–" for _, found in own),
                ]
            )
        if asked.memory:
            unit = "part" if label in PEERS and PEERS[label].on_a_part else "plain"
            peaks.append(
                [label, *(memory(m, asked.samples, label, unit, notes) for m in asked.models)]
            )
    title = f"in plain passes over {asked.samples} samples, medians of {asked.rounds}, one thread"
    show(title, rows, asked.markdown)
    if asked.memory:
        show("growth of peak memory, in that of a plain pass", peaks, asked.markdown)
    print(*(f"[{number}] {text}" for number, text in enumerate(notes.texts, 1)), sep="\n")
    print(versions(*PACKAGES))


if __name__ == "__main__":
    main()
