"""`gradnoise branch`."""

from __future__ import annotations

import argparse

from ..trials.branch import branch
from .arguments import check_targets, chosen, shows_progress, tell_written
from .target import threads_of, with_optimizer

BRANCHED = [
    "batch_sizes", "samples", "factors", "scaling", "stability", "batch_size", "seeds",
    "max_grad_norm", "schedule",
]  # fmt: skip


def run(options: argparse.Namespace) -> int:
    """Train copies at several batch sizes, for equal samples."""
    check_targets(options)
    with threads_of(options.target):
        return _run(options)


def _run(options: argparse.Namespace) -> int:
    found = branch(
        *with_optimizer(options),
        path=options.out,
        progress=shows_progress(options),
        **chosen(options, *BRANCHED),
    )
    print(found)
    if options.plot:
        found.plot(options.plot)
    return tell_written(options.out, options.plot)
