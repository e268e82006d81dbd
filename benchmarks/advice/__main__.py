"""Is the advice right? Held to plain training on ten problems.

python -m benchmarks.advice truth                 # all problems, about an hour on one core
python -m benchmarks.advice truth digits_mlp gru  # some of them
python -m benchmarks.advice truth --seeds 3       # what is there is not run again
python -m benchmarks.advice truth --checkpoints 4 # four seeds from the checkpoints
python -m benchmarks.advice truth unseen_softmax --seeds 1 --checkpoints 4  # another problem
python -m benchmarks.advice truth --show          # tables alone
python -m benchmarks.advice held                  # gn.advise at every checkpoint, 20 minutes
python -m benchmarks.advice decaying              # the truth where the rate falls to zero
python -m benchmarks.advice held --decays         # gn.advise(..., schedule="linear") held to it
python -m benchmarks.advice critical              # B_crit by gn.branch there, 20 minutes
python -m benchmarks.advice critical --part 4     # by branches of a quarter of the samples
python -m benchmarks.advice demo                  # the digits of `make demo`, a minute
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import torch

from .critical import hold as branch_hold
from .critical import show as branch_show
from .decaying import Decaying
from .decaying import show as decaying_show
from .demo import show as demo_show
from .held import hold
from .held import show as held_show
from .problems import ALL, PROBLEMS, Problem
from .truth import find, show


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    truth = _command(commands, "truth", "train, and say what would have been right")
    truth.add_argument("--seeds", type=int, default=2)
    truth.add_argument(
        "--checkpoints", type=int, default=0, help="seeds of runs from there, if more"
    )
    _command(commands, "decaying", "train with rates that fall to zero")
    _command(commands, "demo", "the digits: what is named, and how it trains")
    branched = _command(commands, "critical", "B_crit by gn.branch at every checkpoint")
    branched.add_argument("--seed", type=int, default=0, help="of the reference run")
    branched.add_argument(
        "--part", type=int, default=1, help="4: a quarter of the samples of the trained runs"
    )
    held = _command(commands, "held", "ask for advice, and train as advised")
    held.add_argument("--epochs", type=float, nargs="+", default=[2, 10, 30, 100], help="budgets")
    held.add_argument("--seed", type=int, default=0, help="of the reference run")
    for command in (branched, held):
        command.add_argument("--decays", action="store_true", help="rates fall to zero, linearly")
        command.add_argument("--again", action="store_true", help="ask again where it was asked")
    options = parser.parse_args()
    torch.set_num_threads(1)
    unknown = set(options.problems) - set(ALL)
    if unknown:
        parser.error(f"no such problem: {', '.join(sorted(unknown))}; known: {', '.join(ALL)}")
    every = ALL if options.command in ("critical", "decaying") else PROBLEMS
    COMMANDS[options.command]([ALL[name] for name in options.problems or every], options)


def _command(commands: Any, name: str, about: str) -> argparse.ArgumentParser:
    found: argparse.ArgumentParser = commands.add_parser(name, help=about)
    found.add_argument("problems", nargs="*", metavar="problem", help=", ".join(ALL))
    found.add_argument("--show", action="store_true", help="train nothing")
    found.add_argument("--markdown", action="store_true", help="tables for GitHub")
    return found


def _truth(problems: list[Problem], options: argparse.Namespace) -> None:
    # in the order of worth: small batches are slow, further seeds narrow what is known
    seeds = options.seeds
    passes: list[tuple[int, int, range]] = [(n, 16, range(0)) for n in range(1, seeds + 1)]
    passes += [(seeds, 0, range(0)), (seeds, 16, range(seeds, options.checkpoints))]
    for count, smallest, further in () if options.show else passes:
        for problem in problems:
            find(problem, range(count), smallest, further)
    show(problems, options.markdown)


def _decaying(problems: list[Problem], options: argparse.Namespace) -> None:
    for problem in () if options.show else problems:
        Decaying(problem).everything()
    decaying_show(problems, options.markdown)


def _critical(problems: list[Problem], options: argparse.Namespace) -> None:
    for problem in () if options.show else problems:
        branch_hold(problem, options.seed, options.part, options.again, options.decays)
    branch_show(options.part, options.markdown, options.decays)


def _held(problems: list[Problem], options: argparse.Namespace) -> None:
    for problem in () if options.show else problems:
        hold(problem, options.epochs, options.seed, options.again, options.decays)
    held_show(problems, options.markdown, options.decays)


COMMANDS: dict[str, Callable[[list[Problem], argparse.Namespace], None]] = {
    "truth": _truth, "decaying": _decaying, "critical": _critical, "held": _held,
    "demo": lambda _, options: demo_show(options.markdown),
}  # fmt: skip


if __name__ == "__main__":
    main()
