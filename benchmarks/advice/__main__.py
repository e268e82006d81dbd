"""Is the advice right? Held to plain training on ten problems.

python -m benchmarks.advice truth                 # all problems, about an hour on one core
python -m benchmarks.advice truth digits_mlp gru  # some of them
python -m benchmarks.advice truth --seeds 3       # what is there is not run again
python -m benchmarks.advice truth --checkpoints 4 # four seeds from the checkpoints
python -m benchmarks.advice truth unseen_softmax --seeds 1 --checkpoints 4  # another problem
python -m benchmarks.advice truth --show          # tables alone
python -m benchmarks.advice held                  # gn.advise at every checkpoint, 20 minutes
python -m benchmarks.advice critical              # B_crit by gn.branch there, 20 minutes
python -m benchmarks.advice critical --part 4     # by branches of a quarter of the samples
python -m benchmarks.advice demo                  # the digits of `make demo`, a minute
"""

from __future__ import annotations

import argparse

import torch

from .critical import hold as branch_hold
from .critical import show as branch_show
from .demo import show as demo_show
from .held import hold
from .held import show as held_show
from .problems import ALL, PROBLEMS
from .truth import find, show


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    truth = commands.add_parser("truth", help="train, and say what would have been right")
    truth.add_argument("problems", nargs="*", metavar="problem", help=", ".join(ALL))
    truth.add_argument("--seeds", type=int, default=2)
    truth.add_argument(
        "--checkpoints", type=int, default=0, help="seeds of runs from there, if more"
    )
    truth.add_argument("--show", action="store_true", help="train nothing")
    truth.add_argument("--markdown", action="store_true", help="tables for GitHub")
    demo = commands.add_parser("demo", help="the digits: what is named, and how it trains")
    demo.add_argument("--markdown", action="store_true", help="tables for GitHub")
    branched = commands.add_parser("critical", help="B_crit by gn.branch at every checkpoint")
    branched.add_argument("problems", nargs="*", metavar="problem", help=", ".join(ALL))
    branched.add_argument("--seed", type=int, default=0, help="of the reference run")
    branched.add_argument(
        "--part", type=int, default=1, help="4: a quarter of the samples of the trained runs"
    )
    branched.add_argument("--show", action="store_true", help="train nothing")
    branched.add_argument("--markdown", action="store_true", help="tables for GitHub")
    held = commands.add_parser("held", help="ask for advice, and train as advised")
    held.add_argument("problems", nargs="*", metavar="problem", help=", ".join(PROBLEMS))
    held.add_argument("--epochs", type=float, nargs="+", default=[2, 10, 30, 100], help="budgets")
    held.add_argument("--seed", type=int, default=0, help="of the reference run")
    held.add_argument("--again", action="store_true", help="ask again where it was asked")
    held.add_argument("--show", action="store_true", help="train nothing")
    held.add_argument("--markdown", action="store_true", help="tables for GitHub")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.command == "demo":
        demo_show(options.markdown)
        return
    unknown = set(options.problems) - set(ALL)
    if unknown:
        parser.error(f"no such problem: {', '.join(sorted(unknown))}; known: {', '.join(ALL)}")
    if options.command == "critical":
        names = options.problems or list(ALL)
        for name in () if options.show else names:
            branch_hold(ALL[name], options.seed, options.part)
        branch_show(options.part, options.markdown)
        return
    names = options.problems or list(PROBLEMS)
    if options.command == "held":
        for name in () if options.show else names:
            hold(ALL[name], options.epochs, options.seed, options.again)
        held_show([ALL[name] for name in names], options.markdown)
        return
    # in the order of worth: small batches are slow, further seeds narrow what is known
    seeds = options.seeds
    passes: list[tuple[int, int, range]] = [(n, 16, range(0)) for n in range(1, seeds + 1)]
    passes += [(seeds, 0, range(0)), (seeds, 16, range(seeds, options.checkpoints))]
    for count, smallest, further in () if options.show else passes:
        for name in names:
            find(ALL[name], range(count), smallest, further)
    show([ALL[name] for name in names], options.markdown)


if __name__ == "__main__":
    main()
