"""`gradnoise advise`."""

from __future__ import annotations

import argparse
import math
from typing import Any

from torch import nn

from ..errors import ArgumentError
from ..problem.samples import Samples
from ..problem.state.guard import untouched
from ..trials.advise import advise
from .arguments import check_targets, chosen, shows_progress, tell_written
from .target import with_optimizer


def run(options: argparse.Namespace) -> int:
    """Find a batch size and a learning rate by short runs."""
    check_targets(options)
    problem = with_optimizer(options)
    budget = options.budget
    if options.epochs is not None:
        budget = max(1, round(options.epochs * _count(problem[2])))
    found = advise(
        *problem,
        budget=budget,
        path=options.out,
        progress=shows_progress(options),
        **chosen(options, "batch_size", "seeds", "max_grad_norm"),
    )
    print(found)
    drawn = options.plot if any(found.branches.largest_stable().values()) else None
    if drawn:
        found.branches.plot(drawn)
    return tell_written(options.out, drawn)


def _count(data: Any) -> float:
    """How many samples there are."""
    with untouched(nn.Identity(), data):
        found = Samples.draw(data, max_samples=2, least=1).population
    if math.isinf(found):
        raise ArgumentError("--epochs needs data of a known length: give --budget in samples")
    return found
