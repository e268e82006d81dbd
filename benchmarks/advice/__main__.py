"""Is the advice right? Held to plain training on ten problems.

python -m benchmarks.advice truth                 # all problems, about an hour on one core
python -m benchmarks.advice truth digits_mlp gru  # some of them
python -m benchmarks.advice truth --seeds 3       # what is there is not run again
python -m benchmarks.advice truth --show          # tables alone
python -m benchmarks.advice held                  # gn.advise at every checkpoint, 20 minutes
python -m benchmarks.advice critical              # B_crit by gn.branch there, 15 minutes
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
from .problems import PROBLEMS
from .truth import find, show


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    truth = commands.add_parser("truth", help="train, and say what would have been right")
    truth.add_argument("problems", nargs="*", metavar="problem", help=", ".join(PROBLEMS))
    truth.add_argument("--seeds", type=int, default=2)
    truth.add_argument("--show", action="store_true", help="train nothing")
    truth.add_argument("--markdown", action="store_true", help="tables for GitHub")
    demo = commands.add_parser("demo", help="the digits: what is named, and how it trains")
    demo.add_argument("--markdown", action="store_true", help="tables for GitHub")
    branched = commands.add_parser("critical", help="B_crit by gn.branch at every checkpoint")
    branched.add_argument("problems", nargs="*", metavar="problem", help=", ".join(PROBLEMS))
    branched.add_argument("--seed", type=int, default=0, help="of the reference run")
    branched.add_argument("--show", action="store_true", help="train nothing")
    branched.add_argument("--markdown", action="store_true", help="tables for GitHub")
    held = commands.add_parser("held", help="ask for advice, and train as advised")
    held.add_argument("problems", nargs="*", metavar="problem", help=", ".join(PROBLEMS))
    held.add_argument("--epochs", type=float, nargs="+", default=[2, 10, 30], help="budgets")
    held.add_argument("--seed", type=int, default=0, help="of the reference run")
    held.add_argument("--again", action="store_true", help="ask again where it was asked")
    held.add_argument("--show", action="store_true", help="train nothing")
    held.add_argument("--markdown", action="store_true", help="tables for GitHub")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.command == "demo":
        demo_show(options.markdown)
        return
    unknown = set(options.problems) - set(PROBLEMS)
    if unknown:
        parser.error(f"no such problem: {', '.join(sorted(unknown))}; known: {', '.join(PROBLEMS)}")
    names = options.problems or list(PROBLEMS)
    if options.command == "critical":
        for name in () if options.show else names:
            branch_hold(PROBLEMS[name], options.seed)
        branch_show([PROBLEMS[name] for name in names], options.markdown)
        return
    if options.command == "held":
        for name in () if options.show else names:
            hold(PROBLEMS[name], options.epochs, options.seed, options.again)
        held_show([PROBLEMS[name] for name in names], options.markdown)
        return
    # in the order of worth: small batches are slow, further seeds narrow what is known
    passes = [(seeds, 16) for seeds in range(1, options.seeds + 1)] + [(options.seeds, 0)]
    for seeds, smallest in () if options.show else passes:
        for name in names:
            find(PROBLEMS[name], range(seeds), smallest)
    show([PROBLEMS[name] for name in names], options.markdown)


if __name__ == "__main__":
    main()
