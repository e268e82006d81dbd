"""`gradnoise sweep`."""

from __future__ import annotations

import argparse
from typing import Any

from ..sweeps.optimizer import optimizer_arguments
from ..sweeps.sweep import sweep
from ..toy.digits import digits, digits_net
from .arguments import check_targets, chosen, shows_progress, tell_written
from .target import factory_of, threads_of


def run(options: argparse.Namespace) -> int:
    """Train with every learning rate at every batch size."""
    check_targets(options)
    with threads_of(options.target):
        return _run(options)


def _run(options: argparse.Namespace) -> int:
    if options.epochs is None and options.steps is None:
        options.epochs = 10.0
    make_model, loss_fn, data, trained = _trainable(options)
    if options.momentum is not None:
        trained["momentum"] = options.momentum
    found = sweep(
        make_model,
        loss_fn,
        data,
        **chosen(options, "batch_sizes", "lrs", "epochs", "steps", "seeds", "schedule"),
        path=options.out,
        progress=shows_progress(options),
        **trained,
    )
    print(found)
    if options.plot:
        for budget in sorted({record.run.budget for record in found.records})[:1]:
            found.under(budget).plot(options.plot)
    return tell_written(options.out, options.plot)


def _trainable(options: argparse.Namespace) -> tuple[Any, Any, Any, dict[str, Any]]:
    """A function that makes the model anew, the loss, the data, and the optimizer's settings."""
    if options.target == "digits":
        return digits_net, *digits(epochs=0)[1:3], {}
    make = factory_of(options.target)
    _, loss_fn, data, optimizer = make()
    return lambda: make()[0], loss_fn, data, optimizer_arguments(optimizer)
