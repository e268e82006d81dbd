"""`gradnoise advise`."""

from __future__ import annotations

import argparse

from ..trials.advise import advise
from .arguments import check_targets, chosen, shows_progress, tell_written
from .target import samples_of, threads_of, with_optimizer


def run(options: argparse.Namespace) -> int:
    """Find a batch size and a learning rate by short runs."""
    check_targets(options)
    with threads_of(options.target):
        return _run(options)


def _run(options: argparse.Namespace) -> int:
    problem = with_optimizer(options)
    budget = options.budget
    if options.epochs is not None:
        budget = samples_of(problem[2], options.epochs, "--epochs")
    found = advise(
        *problem,
        budget=budget,
        path=options.out,
        progress=shows_progress(options),
        **chosen(options, "samples", "batch_size", "seeds", "max_grad_norm", "schedule"),
    )
    print(found)
    drawn = options.plot if any(found.branches.largest_stable().values()) else None
    if drawn:
        found.branches.plot(drawn)
    return tell_written(options.out, drawn)
