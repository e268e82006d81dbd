"""`gradnoise advise` and `gradnoise branch`: short training from where a model stands."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

from torch import nn

from ..errors import ArgumentError
from ..problem.samples import Samples
from ..problem.state.guard import untouched
from ..toy.digits import BATCH_SIZE, digits
from ..trials.advise import advise
from ..trials.branch import GROWTH, branch
from .arguments import (
    POSITIVE,
    TARGET_TRAINED,
    add_command,
    add_common,
    check_targets,
    chosen,
    shows_progress,
    tell_written,
    whole,
)
from .target import factory_of

SHARED = ("batch_size", "seeds", "max_grad_norm")


def advise_command(options: argparse.Namespace) -> int:
    """Find a batch size and a learning rate by short training runs from where a model stands.

    The runs are made on copies, within a budget of samples. The pair that is printed was tried.
    """
    check_targets(options)
    problem = _problem(options)
    budget = options.budget
    if options.epochs is not None:
        budget = max(1, round(options.epochs * _count(problem[2])))
    found = advise(
        *problem,
        budget=budget,
        path=options.out,
        progress=shows_progress(options),
        **chosen(options, *SHARED),
    )
    print(found)
    drawn = options.plot if any(found.branches.largest_stable().values()) else None
    if drawn:
        found.branches.plot(drawn)
    return tell_written(options.out, drawn)


def branch_command(options: argparse.Namespace) -> int:
    """Train copies of a model at several batch sizes for equal samples, from where it stands.

    Print the best and the largest stable learning rate of each, and the critical batch size.
    """
    check_targets(options)
    found = branch(
        *_problem(options),
        path=options.out,
        progress=shows_progress(options),
        **chosen(options, "batch_sizes", "samples", "factors", "scaling", *SHARED),
    )
    print(found)
    if options.plot:
        found.plot(options.plot)
    return tell_written(options.out, options.plot)


def _problem(options: argparse.Namespace) -> tuple[Any, Any, Any, Any]:
    """Model, loss, data and the optimizer that trains the model."""
    if options.target == "digits":
        options.batch_size = options.batch_size or BATCH_SIZE
        return digits()
    made = factory_of(options.target)()
    if made[3] is None:
        raise ArgumentError(
            f"{options.target} returned no optimizer, and runs go on from one: return (model, "
            f"loss_fn, data, optimizer), the optimizer that trains the model, with its state"
        )
    return made


def _count(data: Any) -> float:
    """How many samples there are."""
    with untouched(nn.Identity(), data):
        found = Samples.draw(data, max_samples=2, least=1).population
    if math.isinf(found):
        raise ArgumentError("--epochs needs data of a known length: give --budget in samples")
    return found


def _shared_options(add: Any) -> None:
    add("--batch-size", type=whole(1),
        help="batch size that the optimizer's learning rate is used with (default: the "
        "DataLoader's)")  # fmt: skip
    add("--seeds", type=whole(1), help="how many orders of the samples (default 3)")
    add("--max-grad-norm", type=POSITIVE, metavar="NORM",
        help="longer gradients are cut to it in training (default: they are not)")  # fmt: skip
    add("--out", type=Path, metavar="FILE",
        help="save finished runs; continue from them if it exists")  # fmt: skip
    add("--plot", type=Path, metavar="FILE",
        help="save the picture, loss against batch size (png, pdf, svg, jpg)")  # fmt: skip
    add_common(add)


def advise_options(commands: Any) -> None:
    """Add the command."""
    about = "find a batch size and a learning rate by short training runs from here"
    example = "example: gradnoise advise train.py:factory --epochs 4 --out advice.jsonl"
    add = add_command(commands, advise_command, about, example)
    add("target", help=TARGET_TRAINED)
    length = add.__self__.add_mutually_exclusive_group()
    length.add_argument("--budget", type=whole(1), metavar="N",
                        help="samples that all runs take together (default: 2 epochs)")  # fmt: skip
    length.add_argument("--epochs", type=POSITIVE, metavar="X",
                        help="the budget in passes over the data")  # fmt: skip
    _shared_options(add)


def branch_options(commands: Any) -> None:
    """Add the command."""
    about = "train at several batch sizes from here; find the critical batch size"
    example = (
        "example: gradnoise branch digits --batch-sizes 8 32 128 512 --samples 7200 "
        "--plot branches.png"
    )
    add = add_command(commands, branch_command, about, example)
    add("target", help=TARGET_TRAINED)
    add("--batch-sizes", type=whole(1), nargs="+", metavar="B", required=True, help="batch sizes")
    add("--samples", type=whole(1), metavar="N", required=True, help="samples of each run")
    add("--factors", type=POSITIVE, nargs="+", metavar="F",
        help="learning rates as factors of the one in use (default 0.5 1 2)")  # fmt: skip
    add("--scaling", choices=sorted(GROWTH),
        help="of the learning rate from one batch size to the next (default auto)")  # fmt: skip
    _shared_options(add)
