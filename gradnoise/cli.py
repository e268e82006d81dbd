"""The command line: `gradnoise profile digits`, `gradnoise advise train.py:factory`."""

from __future__ import annotations

import argparse
import difflib
import io
import math
import os
import re
import sys
import time
import traceback
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from .commands.arguments import (
    MOMENTUM,
    POSITIVE,
    TARGET,
    add_command,
    add_common,
    check_targets,
    chosen,
    number,
    shows_progress,
    tell_written,
    whole,
)
from .commands.target import factory_of, one_line
from .commands.trials import advise_command, advise_options, branch_command, branch_options
from .errors import ArgumentError
from .estimators.noise.noise_scale import ACCURACY, PROBES
from .problem.optimizer_settings import OptimizerSettings
from .profiles.file import versions
from .profiles.profile import Profile, profile
from .show.progress import progress_bar
from .sweeps.optimizer import optimizer_arguments
from .sweeps.sweep import sweep
from .toy.digits import BATCH_SIZE, digits, digits_net
from .validation.report import table, validate

FAILED, USAGE_ERROR = 1, 2
PROFILED = (
    *("metric", "batch_size", "engine", "unit", "group_size", "seed", "probes", "accuracy"),
    "budget",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command: 0 when it worked, 1 when validation failed.

    2 with one line on stderr when the user can mend it.
    """
    for stream in (sys.stdout, sys.stderr):  # a console without Greek letters still gets a report
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    options = _parser().parse_args(arguments)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("default" if options.debug else "ignore")
            return COMMANDS[options.command](options)
    except BrokenPipeError:  # the reader has seen enough, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        kept = getattr(options, "out", None)
        more = f"; the same command continues from {kept}" if kept else ""
        print(f"gradnoise: interrupted{more}", file=sys.stderr)
        return 130
    except Exception as error:  # the user's file runs in here: anything can come out
        if options.debug:
            traceback.print_exc()
        print(f"gradnoise: error: {one_line(error)}", file=sys.stderr)
        return USAGE_ERROR
    return 0


def _validate(options: argparse.Namespace) -> int:
    """Compare every estimator with every analytic problem whose exact answer is known.

    Print truth, estimate, z-score and verdict. Exit code 1 if any is wrong.
    """
    start = time.perf_counter()
    with progress_bar(shows_progress(options)) as stage:
        checks = validate(options.seed, stage)
    print(table(checks, start))
    return 0 if all(check.holds for check in checks) else FAILED


def _sweep(options: argparse.Namespace) -> int:
    """Train with every learning rate at every batch size.

    Print the largest stable and the best learning rate of each, and the critical batch size.
    """
    check_targets(options)
    if options.epochs is None and options.steps is None:
        options.epochs = 10.0
    make_model, loss_fn, data, trained = _trainable(options)
    if options.momentum is not None:
        trained["momentum"] = options.momentum
    found = sweep(
        make_model,
        loss_fn,
        data,
        **chosen(options, "batch_sizes", "lrs", "epochs", "steps", "seeds"),
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


def _profile(options: argparse.Namespace) -> int:
    """Measure the gradient noise and the curvature of one model.

    Print what follows for batch size and learning rate.
    """
    check_targets(options)
    model, loss_fn, data, optimizer = _problem(options)
    if options.momentum is not None and options.lr is None and optimizer is None:
        raise ArgumentError("--momentum needs --lr, or a factory that returns its optimizer")
    result = profile(
        model,
        loss_fn,
        data,
        optimizer=optimizer,
        max_samples=options.samples,
        population=_population(options.population),
        progress=shows_progress(options),
        **chosen(options, *PROFILED),
    )
    result = _with_setting(result, options)
    if options.json:
        result.save(options.json)
    print(result)
    if options.plot:
        result.plot(options.plot)
    return tell_written(options.json, options.plot)


def _problem(options: argparse.Namespace) -> tuple[Any, Any, Any, Any]:
    if options.target == "digits":
        options.batch_size = options.batch_size or BATCH_SIZE
        return digits(**chosen(options, "seed", "lr", "batch_size", "momentum", "epochs"))
    if options.epochs is not None:
        raise ArgumentError("--epochs is for digits; your own factory decides how it trains")
    return factory_of(options.target)()


def _with_setting(result: Profile, options: argparse.Namespace) -> Profile:
    """The report about the learning rate and momentum given on the command line."""
    if options.target == "digits" or (options.lr is None and options.momentum is None):
        return result
    settings = result.optimizer or OptimizerSettings("SGD", options.lr)
    return replace(result, optimizer=replace(settings, **chosen(options, "lr", "momentum")))


def _population(text: str) -> str | int:
    return int(text) if text.isdecimal() else text


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        hint = f"{_about_command(message)} (see {self.prog} --help)"
        self.exit(USAGE_ERROR, f"gradnoise: error: {message}{hint}\n")


def _about_command(message: str) -> str:
    """The nearest command, where a command is not known."""
    match = re.search(r"argument COMMAND: invalid choice: '([^']*)'", message)
    if match is None:
        return ""
    got = match[1]
    if got == "digits" or ":" in got:
        return f"; the command comes first: gradnoise profile {got}"
    near = difflib.get_close_matches(got, COMMANDS, 1)
    return f"; did you mean {near[0]}?" if near else ""


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="gradnoise",
        description="How noisy a PyTorch model's gradients are, and how sharp its loss is.",
    )
    parser.add_argument("--version", action="version", version=versions()["gradnoise"])
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _profile_options(commands)
    advise_options(commands)
    branch_options(commands)
    _sweep_options(commands)
    _validate_options(commands)
    return parser


def _sweep_options(commands: Any) -> None:
    add = add_command(
        commands, _sweep,
        "train with many learning rates and batch sizes; find the stable and the best ones",
        "example: gradnoise sweep train.py:factory --batch-sizes 8 32 128 --epochs 5 "
        "--out sweep.jsonl --plot sweep.png",
    )  # fmt: skip
    add("target", help=f"{TARGET}, SGD or Adam; it is called for every model that is trained")
    add("--batch-sizes", type=whole(1), nargs="+", default=[4, 16, 64, 256], metavar="B",
        help="batch sizes (default 4 16 64 256)")  # fmt: skip
    add("--lrs", type=POSITIVE, nargs="+",
        default=[2.0**k for k in range(-6, 4)], metavar="LR",
        help="learning rates (default 1/64 to 8 in factors of 2)")  # fmt: skip
    add("--momentum", type=MOMENTUM,
        help="momentum (default that of the factory's optimizer, else 0)")  # fmt: skip
    add("--epochs", type=POSITIVE,
        help="length of the runs in passes over the data (default 10)")  # fmt: skip
    add("--steps", type=whole(1), help="length of the runs in steps")
    add("--seeds", type=whole(1), default=1, help="how many seeds to train with (default 1)")
    add("--out", type=Path, metavar="FILE",
        help="save finished runs; continue from them if it exists")  # fmt: skip
    add("--plot", type=Path, metavar="FILE", help="save the picture (png, pdf, svg, jpg)")
    add_common(add)


def _validate_options(commands: Any) -> None:
    about = "compare every estimator with analytic problems; exit code 1 if any is wrong"
    add = add_command(commands, _validate, about)
    add("--seed", type=whole(0), default=0, help="seed of samples and directions (default 0)")
    add_common(add)


def _profile_options(commands: Any) -> None:
    about = "measure one model; print what follows for batch size and learning rate"
    example = "example: gradnoise profile train.py:factory --batch-size 64 --lr 0.1 --plot map.png"
    add = add_command(commands, _profile, about, example)
    add("target", help=TARGET)
    add("--samples", type=whole(2), default=4096, help="samples to measure at most (default 4096)")
    add("--population", default="dataset", help="what the intervals are about: dataset (default), "
        "distribution, or a number of samples")  # fmt: skip
    add("--batch-size", type=whole(1), help="batch size in training (default: the DataLoader's)")
    add("--lr", type=POSITIVE,
        help="learning rate in training; it is judged together with the batch size")  # fmt: skip
    add("--momentum", type=MOMENTUM,
        help="momentum in training")  # fmt: skip
    add("--metric", default="auto", help="euclidean: learning rates of plain SGD; optimizer: those "
        "of the optimizer that the factory returns, after it has taken steps; auto (default): "
        "optimizer for Adam and other adaptive ones, else euclidean")  # fmt: skip
    add("--epochs", type=whole(0), help="digits only: train so many epochs first (default 5)")
    add("--engine", default="auto", help="how per-sample gradients are computed: auto (default), "
        "hooks, functional, backpack or loop")  # fmt: skip
    add("--unit", default="auto", help="auto (default): single samples where their losses are "
        "independent, else groups of samples (batch normalisation); sample or group "
        "insists")  # fmt: skip
    add("--group-size", type=whole(1), metavar="B",
        help="samples of a group (default: the batch size in training)")  # fmt: skip
    add("--probes", type=whole(2), default=PROBES,
        help=f"random directions for tr(HΣ) at most, of fewer than 512 samples "
        f"(default {PROBES})")  # fmt: skip
    add("--accuracy", type=number(lambda x: 0 <= x < math.inf, "a relative error of at least 0"),
        default=ACCURACY, help=f"half the interval of the noise scale, relative, that is enough "
        f"(default {ACCURACY})")  # fmt: skip
    add("--budget", type=POSITIVE, metavar="PASSES",
        help="plain passes over the samples that may be spent, about; fewer samples are measured "
        "where all would cost more")  # fmt: skip
    add("--seed", type=whole(0), default=0, help="seed of samples and directions (default 0)")
    add("--json", type=Path, metavar="FILE", help="save the profile as JSON")
    add("--plot", type=Path, metavar="FILE",
        help="save the picture, learning rate against batch size (png, pdf, svg, jpg)")  # fmt: skip
    add_common(add)


COMMANDS = {
    "profile": _profile,
    "advise": advise_command,
    "branch": branch_command,
    "sweep": _sweep,
    "validate": _validate,
}


if __name__ == "__main__":
    sys.exit(main())
