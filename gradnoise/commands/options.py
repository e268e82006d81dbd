"""The options of every command. No torch is imported here: `gradnoise --help` answers at once."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

from ..checks.vocabulary import READY, UNITS
from ..training.schedule import NAMED
from .arguments import MOMENTUM, POSITIVE, number, whole

TARGET = (
    "'digits' (built in), or path/to/file.py:factory (or package.module:factory), a function "
    "without arguments that returns (model, loss_fn, data) or (model, loss_fn, data, optimizer)"
)
TARGET_TRAINED = (
    "'digits' (built in), or path/to/file.py:factory (or package.module:factory), a function "
    "without arguments that returns (model, loss_fn, data, optimizer), the optimizer with its state"
)
PROFILE = """
Measure the gradient noise and the curvature of one model. Print what follows for batch size and
learning rate.
"""
REPORT = """
Print the report of a saved profile, and write it as one page of HTML that needs no network.
"""
ADVISE = """
Find a batch size and a learning rate by short training runs from where a model stands. The runs are
made on copies, within a budget of samples. The pair that is printed was tried.
"""
BRANCH = """
Train copies of a model at several batch sizes for equal samples, from where it stands. Print the
best and the largest stable learning rate of each, and the critical batch size.
"""
SWEEP = """
Train with every learning rate at every batch size. Print the largest stable and the best learning
rate of each, and the critical batch size.
"""
WATCH = """
Show what a `gn.NoiseMonitor` writes, in 80 columns, while the model trains: noise scale with its
interval, batch size, loss, learning rate. Ctrl-C leaves; training is not touched.
"""
COMPARE = """
Say what changed from one saved profile to another beyond the errors of both: two checkpoints,
optimizers or batch sizes. Of more than two, each is compared with the first.
"""
CHECK = """
Hold a saved profile to rules, by its intervals. Exit code 0 if all rules passed, 1 if one did not,
2 at any error. A rule that the intervals cannot tell has not passed, unless --allow-unresolved is
given.
"""
VALIDATE = """
Compare every estimator with every analytic problem whose exact answer is known. Print truth,
estimate, z-score and verdict. Exit code 1 if any is wrong.
"""


def _command(commands: Any, name: str, text: str, about: str, epilog: str) -> Any:
    """Add a command with its examples, a line each; what adds its options."""
    kind, _, examples = epilog.partition(": ")
    return commands.add_parser(
        name,
        help=about,
        description=text.strip(),
        epilog="\n  ".join([f"{kind}:", *examples.split("; ")]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).add_argument


def _profile_options(commands: Any) -> None:
    about = "measure one model; print what follows for batch size and learning rate"
    example = "example: gradnoise profile train.py:factory --batch-size 64 --lr 0.1 --plot map.png"
    add = _command(commands, "profile", PROFILE, about, example)
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
    add("--probes", type=whole(2), help="random directions for tr(H Sigma) at most, of fewer "
        "than 512 samples (default 32)")  # fmt: skip
    add("--accuracy", type=number(lambda x: 0 <= x < math.inf, "a relative error of at least 0"),
        help="half the interval of the noise scale, relative, that is enough "
        "(default 0.15)")  # fmt: skip
    add("--budget", type=POSITIVE, metavar="PASSES",
        help="plain passes over the samples that may be spent, about; fewer samples are measured "
        "where all would cost more")  # fmt: skip
    add("--seed", type=whole(0), default=0, help="seed of samples and directions (default 0)")
    add("--advise", type=POSITIVE, nargs="?", const=2.0, metavar="EPOCHS",
        help="also train copies for so many passes over the data (default 2), and name a batch "
        "size and a learning rate that were tried, as gradnoise advise does")  # fmt: skip
    add("--spectra", action="store_true",
        help="also measure the spectra of H and Sigma, for --html; this costs more than all the "
        "rest")  # fmt: skip
    add("--full", action="store_true", help="print all numbers, limits over batch size, and layers")
    add("--json", type=Path, metavar="FILE", help="save the profile as JSON; - prints it "
        "to stdout, and the report to stderr")  # fmt: skip
    add("--html", type=Path, metavar="FILE", help="save the report as a page with pictures")
    add("--plot", type=Path, metavar="FILE",
        help="save the picture, learning rate against batch size (png, pdf, svg, jpg)")  # fmt: skip
    _common_options(add)


def _report_options(commands: Any) -> None:
    about = "show a saved profile, and make its page with pictures"
    examples = "example: gradnoise report profile.json --html report.html"
    add = _command(commands, "report", REPORT, about, examples)
    add("file", type=Path, help="a profile that --json, p.save or --html wrote")
    add("--full", action="store_true", help="print all numbers, limits over batch size, and layers")
    add("--html", type=Path, metavar="FILE", help="the page (default: the name of the file, .html)")
    add("--text", action="store_true", help="print only, make no page")
    add("--plot", type=Path, metavar="FILE",
        help="save the picture, learning rate against batch size (png, pdf, svg, jpg)")  # fmt: skip
    _debug_option(add)


def _advise_options(commands: Any) -> None:
    about = "find a batch size and a learning rate by short training runs from here"
    example = "example: gradnoise advise train.py:factory --epochs 4 --out advice.jsonl"
    add = _command(commands, "advise", ADVISE, about, example)
    add("target", help=TARGET_TRAINED)
    length = add.__self__.add_mutually_exclusive_group()
    length.add_argument("--budget", type=whole(1), metavar="N",
                        help="samples that all runs take together (default: 2 epochs)")  # fmt: skip
    length.add_argument("--epochs", type=POSITIVE, metavar="X",
                        help="the budget in passes over the data")  # fmt: skip
    add("--samples", type=whole(1), metavar="N",
        help="samples that the training ahead takes (default: not known)")  # fmt: skip
    _shared_options(add, "how many orders of the samples in the last runs (default 2)")


def _branch_options(commands: Any) -> None:
    about = "train at several batch sizes from here; find the critical batch size"
    example = (
        "example: gradnoise branch digits --batch-sizes 8 32 128 512 --samples 7200 "
        "--plot branches.png"
    )
    add = _command(commands, "branch", BRANCH, about, example)
    add("target", help=TARGET_TRAINED)
    add("--batch-sizes", type=whole(1), nargs="+", metavar="B", required=True, help="batch sizes")
    add("--samples", type=whole(1), metavar="N", required=True, help="samples of each run")
    add("--factors", type=POSITIVE, nargs="+", metavar="F",
        help="learning rates as factors of the one in use (default 0.5 1 2)")  # fmt: skip
    add("--scaling", choices=("auto", "linear", "none", "sqrt"),
        help="of the learning rate from one batch size to the next (default auto)")  # fmt: skip
    add("--stability", action="store_true",
        help="also find the learning rate from which runs diverge")  # fmt: skip
    _shared_options(add, "how many orders of the samples (default 3)")


def _shared_options(add: Any, seeds: str) -> None:
    add("--batch-size", type=whole(1),
        help="batch size that the optimizer's learning rate is used with (default: the "
        "DataLoader's)")  # fmt: skip
    add("--seeds", type=whole(1), help=seeds)
    add("--max-grad-norm", type=POSITIVE, metavar="NORM",
        help="longer gradients are cut to it in training (default: they are not)")  # fmt: skip
    _schedule_option(add)
    add("--out", type=Path, metavar="FILE",
        help="save finished runs; continue from them if it exists")  # fmt: skip
    add("--plot", type=Path, metavar="FILE",
        help="save the picture, loss against batch size (png, pdf, svg, jpg)")  # fmt: skip
    _common_options(add)


def _schedule_option(add: Any) -> None:
    add("--schedule", choices=sorted(NAMED),
        help="how the learning rate falls to zero within each run (default: it stays "
        "constant)")  # fmt: skip


def _sweep_options(commands: Any) -> None:
    add = _command(
        commands, "sweep", SWEEP,
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
    _schedule_option(add)
    add("--out", type=Path, metavar="FILE",
        help="save finished runs; continue from them if it exists")  # fmt: skip
    add("--plot", type=Path, metavar="FILE", help="save the picture (png, pdf, svg, jpg)")
    _common_options(add)


def _watch_options(commands: Any) -> None:
    example = "example: gradnoise watch run.jsonl"
    about = "follow the noise scale of a run while it trains, in the terminal"
    add = _command(commands, "watch", WATCH, about, example)
    add("file", type=Path, help="the file that is the monitor's sink; it is waited for")
    add("--once", action="store_true", help="show the run once, with what it says as a whole, and "
        "leave; the default where the output is no terminal")  # fmt: skip
    add("--plot", type=Path, metavar="FILE",
        help="save the picture (png, pdf, svg, jpg), show the run once and leave")  # fmt: skip
    add("--interval", type=POSITIVE, default=2.0, metavar="SECONDS",
        help="seconds between two looks at the file (default 2)")  # fmt: skip
    _debug_option(add)


def _compare_options(commands: Any) -> None:
    about = "say what changed from one saved profile to another, beyond their errors"
    example = (
        "examples: gradnoise compare epoch1.json epoch10.json; "
        "gradnoise compare sgd.json adam.json --json - | jq '.comparisons[0].changed'"
    )
    add = _command(commands, "compare", COMPARE, about, example)
    add("files", type=Path, nargs="+", metavar="FILE",
        help="profiles that --json or Profile.save wrote, two or more")  # fmt: skip
    add("--level", type=number(lambda x: 0 < x < 1, "between 0 and 1"),
        help="coverage of the intervals (default: the higher one of the profiles)")  # fmt: skip
    add("--independent", action="store_true", help="the profiles are of different samples: their "
        "errors are independent, and intervals shorter")  # fmt: skip
    add("--json", type=Path, metavar="FILE",
        help="save them as JSON; - prints it to stdout in place of the text")  # fmt: skip
    _debug_option(add)


def _check_options(commands: Any) -> None:
    about = "hold a saved profile to rules; exit code 1 if one did not pass"
    example = (
        "examples: gradnoise check p.json; "
        'gradnoise check p.json --rule resolved --rule "lr < 0.5 * mean_square_lr" '
        '--rule "batch_size <= 2 * noise_scale" --rule "age < 7 days"'
    )
    add = _command(commands, "check", CHECK, about, example)
    add("file", type=Path, help="a profile that --json or Profile.save wrote")
    add("--rule", action="append", metavar="RULE", help="a comparison of two sides with <, <=, > "
        f"or >=: a name, a number times a name, a number, a time. Names: {', '.join(UNITS)}. "
        f"Or a ready-made rule: {', '.join(READY)}. Once for each rule (default: resolved, and "
        "lr-below-limit and batch-near-critical where the profile has learning rate and batch "
        "size)")  # fmt: skip
    add("--allow-unresolved", action="store_true", help="rules that the intervals cannot tell pass")
    add("--json", type=Path, metavar="FILE",
        help="save the outcome as JSON; - prints it to stdout in place of the table")  # fmt: skip
    _debug_option(add)


def _validate_options(commands: Any) -> None:
    about = "compare every estimator with analytic problems; exit code 1 if any is wrong"
    add = _command(commands, "validate", VALIDATE, about, "example: gradnoise validate --seed 1")
    add("--seed", type=whole(0), default=0, help="seed of samples and directions (default 0)")
    _common_options(add)


def _common_options(add: Any) -> None:
    """The options of every command that measures."""
    add("--quiet", action="store_true", help="show no progress bar")
    _debug_option(add)


def _debug_option(add: Any) -> None:
    add("--debug", action="store_true", help="show the traceback of an error")


# each command is run by the module of its name
COMMANDS = {
    "profile": _profile_options,
    "report": _report_options,
    "advise": _advise_options,
    "branch": _branch_options,
    "sweep": _sweep_options,
    "watch": _watch_options,
    "compare": _compare_options,
    "check": _check_options,
    "validate": _validate_options,
}
