"""The command line: `gradnoise profile digits`, `gradnoise profile train.py:factory`."""

from __future__ import annotations

import argparse
import ast
import difflib
import importlib.util
import inspect
import io
import math
import os
import re
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from .errors import ArgumentError, GradNoiseError
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
Command = Callable[[argparse.Namespace], int]
PLOT_FORMATS = (".png", ".pdf", ".svg", ".jpg")


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
        print(f"gradnoise: error: {_one_line(error)}", file=sys.stderr)
        return USAGE_ERROR
    return 0


def _shows_progress(options: argparse.Namespace) -> bool:
    return not options.quiet and sys.stderr is not None and sys.stderr.isatty()


def _validate(options: argparse.Namespace) -> int:
    """Compare every estimator with every analytic problem whose exact answer is known.

    Print truth, estimate, z-score and verdict. Exit code 1 if any is wrong.
    """
    start = time.perf_counter()
    with progress_bar(_shows_progress(options)) as stage:
        checks = validate(options.seed, stage)
    print(table(checks, start))
    return 0 if all(check.holds for check in checks) else FAILED


def _sweep(options: argparse.Namespace) -> int:
    """Train with every learning rate at every batch size.

    Print the largest stable and the best learning rate of each, and the critical batch size.
    """
    _check_targets(options)
    if options.epochs is None and options.steps is None:
        options.epochs = 10.0
    make_model, loss_fn, data, trained = _trainable(options)
    if options.momentum is not None:
        trained["momentum"] = options.momentum
    found = sweep(
        make_model,
        loss_fn,
        data,
        **_chosen(options, "batch_sizes", "lrs", "epochs", "steps", "seeds"),
        path=options.out,
        progress=_shows_progress(options),
        **trained,
    )
    print(found)
    if options.plot:
        for budget in sorted({record.run.budget for record in found.records})[:1]:
            found.under(budget).plot(options.plot)
    return _tell_written(options.out, options.plot)


def _tell_written(*paths: Path | None) -> int:
    written = [str(path) for path in paths if path]
    if written:
        print(f"\nwritten: {', '.join(written)}")
    return 0


def _trainable(options: argparse.Namespace) -> tuple[Any, Any, Any, dict[str, Any]]:
    """A function that makes the model anew, the loss, the data, and the optimizer's settings."""
    if options.target == "digits":
        return digits_net, *digits(epochs=0)[1:3], {}
    make = _factory(options.target)
    _, loss_fn, data, optimizer = make()
    return lambda: make()[0], loss_fn, data, optimizer_arguments(optimizer)


def _profile(options: argparse.Namespace) -> int:
    """Measure the gradient noise and the curvature of one model.

    Print what follows for batch size and learning rate.
    """
    _check_targets(options)
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
        progress=_shows_progress(options),
        **_chosen(options, "metric", "batch_size", "engine", "seed", "probes", "accuracy"),
    )
    result = _with_setting(result, options)
    if options.json:
        result.save(options.json)
    print(result)
    if options.plot:
        result.plot(options.plot)
    return _tell_written(options.json, options.plot)


def _problem(options: argparse.Namespace) -> tuple[Any, Any, Any, Any]:
    if options.target == "digits":
        options.batch_size = options.batch_size or BATCH_SIZE
        return digits(**_chosen(options, "seed", "lr", "batch_size", "momentum", "epochs"))
    if options.epochs is not None:
        raise ArgumentError("--epochs is for digits; your own factory decides how it trains")
    return _factory(options.target)()


def _factory(target: str) -> Callable[[], tuple[Any, Any, Any, Any]]:
    """A function that calls the factory; the file is executed once, here."""
    path, name = _path_of(target)
    with _told_of(target, path):
        factory = _loaded(path, name)

    def make() -> tuple[Any, Any, Any, Any]:
        with _told_of(target, path):
            return _four(factory(), target)

    return make


@contextmanager
def _told_of(target: str, path: Path) -> Iterator[None]:
    """Errors in the user's file are reported with file and line."""
    try:
        yield
    except GradNoiseError:
        raise
    except SystemExit as error:
        raise ArgumentError(
            f"{target} called sys.exit({error.code}) while it was loaded; keep what is meant for "
            f"the command line under if __name__ == '__main__'"
        ) from error
    except Exception as error:
        raise ArgumentError(f"{target} failed{_where(error, path)}: {_told(error)}") from error


def _four(made: Any, target: str) -> tuple[Any, Any, Any, Any]:
    """Model, loss, data and optimizer, or None, as a factory has returned them."""
    if not isinstance(made, tuple) or len(made) not in (3, 4):
        got = f"{len(made)} things" if isinstance(made, tuple) else type(made).__name__
        raise ArgumentError(
            f"{target} must return (model, loss_fn, data) or "
            f"(model, loss_fn, data, optimizer); got {got}"
        )
    return made if len(made) == 4 else (*made, None)


def _path_of(target: str) -> tuple[Path, str]:
    file, _, name = target.rpartition(":")
    path = Path(file)
    if not file or not name.isidentifier():
        raise ArgumentError(
            f"expected 'digits' or 'path/to/file.py:factory'; got {target!r}"
            f"{_functions_of(Path(target))}"
        )
    if not path.is_file():
        raise ArgumentError(f"there is no file {file}")
    return path, name


def _loaded(path: Path, name: str) -> Any:
    private = f"gradnoise_target_{path.stem}"  # the file may be called like a library
    spec = importlib.util.spec_from_file_location(private, path)
    if spec is None or spec.loader is None:
        raise ArgumentError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[private] = module  # as an import would: dataclasses and pickling look it up
    sys.path.insert(0, str(path.parent.resolve()))  # the file's own neighbours can be imported
    spec.loader.exec_module(module)
    factory = getattr(module, name, None)
    if not callable(factory):
        raise ArgumentError(f"{path} has no function {name!r}{_functions_of(path)}")
    needed = _needed_arguments(factory)
    if needed:
        raise ArgumentError(
            f"{path}:{name} needs the arguments {', '.join(needed)}, and is called without any: "
            f"give them default values"
        )
    if inspect.iscoroutinefunction(factory):
        raise ArgumentError(f"{path}:{name} is async; make it an ordinary function")
    return factory


def _needed_arguments(factory: Any) -> list[str]:
    try:
        parameters = inspect.signature(factory).parameters.values()
    except ValueError:  # written in C
        return []
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p.name for p in parameters if p.default is p.empty and p.kind not in variable]


def _functions_of(path: Path) -> str:
    """The functions of a Python file, for an error; empty where it cannot be read."""
    try:
        body = ast.parse(path.read_text(encoding="utf-8")).body
    except (OSError, ValueError, SyntaxError):
        return ""
    names = [node.name for node in body if isinstance(node, ast.FunctionDef)]
    return f"; its functions are {', '.join(names)}" if names else "; it has no functions"


def _where(error: Exception, path: Path) -> str:
    """The last line of the user's file that an error passed through."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if Path(frame.filename) == path.resolve()]
    own = own or [frame for frame in frames if Path(frame.filename) == path]
    return f" at {path.name}, line {own[-1].lineno} ({own[-1].line})" if own else ""


def _told(error: Exception) -> str:
    """The error in a line, with what to do about imports that fail."""
    text = _one_line(error)
    if not isinstance(error, ImportError):
        return text
    if "relative import" in str(error):
        return f"{text}. The file is loaded by itself: import its package by name"
    return f"{text}. Install it, or set PYTHONPATH to the folder that holds it"


def _with_setting(result: Profile, options: argparse.Namespace) -> Profile:
    """The report about the learning rate and momentum given on the command line."""
    if options.target == "digits" or (options.lr is None and options.momentum is None):
        return result
    settings = result.optimizer or OptimizerSettings("SGD", options.lr)
    return replace(result, optimizer=replace(settings, **_chosen(options, "lr", "momentum")))


def _chosen(options: argparse.Namespace, *names: str) -> dict[str, Any]:
    """The options of these names that were given, or have a default."""
    return {name: value for name in names if (value := getattr(options, name)) is not None}


def _population(text: str) -> str | int:
    return int(text) if text.isdecimal() else text


def _check_targets(options: argparse.Namespace) -> None:
    """Before minutes of measuring, not after."""
    taken = {Path(options.target.rpartition(":")[0]).resolve()}  # the user's own file
    for path in filter(None, (getattr(options, name, None) for name in ("json", "out", "plot"))):
        _check_writable(path)
        if path.resolve() in taken:
            raise ArgumentError(f"cannot write {path}: another option or the target has this name")
        taken.add(path.resolve())
    if options.plot is None:
        return
    if importlib.util.find_spec("matplotlib") is None:
        raise GradNoiseError("--plot needs matplotlib: pip install 'gradnoise[plot]'")
    if options.plot.suffix.lower() not in PLOT_FORMATS:
        raise ArgumentError(f"--plot takes a file that ends in {', '.join(PLOT_FORMATS)}")


def _check_writable(path: Path) -> None:
    if not path.parent.is_dir():
        raise ArgumentError(f"cannot write {path}: there is no folder {path.parent}")
    if path.is_dir():
        raise ArgumentError(f"cannot write {path}: it is a folder")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise ArgumentError(f"cannot write {path}: permission denied")


def _one_line(error: Exception) -> str:
    message = str(error).strip()
    if "Traceback" in message:  # a data loader's worker sends its whole story
        message = message.splitlines()[-1]
    text = " ".join(message.split())
    if isinstance(error, GradNoiseError):
        return text
    return f"{type(error).__name__}{': ' if text else ''}{text} (--debug shows where)"


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


def _whole(least: int) -> Any:
    def parse(text: str) -> int:
        if not text.isdecimal() or not least <= int(text) < 2**63:
            raise argparse.ArgumentTypeError(f"must be a whole number from {least} on; got {text}")
        return int(text)

    return parse


def _number(accept: Any, expected: str) -> Any:
    def parse(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = float("nan")
        if not accept(number):
            raise argparse.ArgumentTypeError(f"must be {expected}; got {text}")
        return number

    return parse


POSITIVE = _number(lambda x: 0 < x < math.inf, "a positive number")
MOMENTUM = _number(lambda x: 0 <= x < 1, "at least 0 and below 1")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="gradnoise",
        description="How noisy a PyTorch model's gradients are, and how sharp its loss is.",
    )
    parser.add_argument("--version", action="version", version=versions()["gradnoise"])
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _profile_options(commands)
    _sweep_options(commands)
    _validate_options(commands)
    return parser


TARGET = (
    "'digits' (built in), or path/to/file.py:factory, a function without arguments that returns "
    "(model, loss_fn, data) or (model, loss_fn, data, optimizer)"
)


def _command(commands: Any, run: Command, about: str, epilog: str | None = None) -> Any:
    """Add a command, described by the docstring of what runs it; what adds its options."""
    name, text = run.__name__.strip("_"), inspect.getdoc(run)
    return commands.add_parser(name, help=about, description=text, epilog=epilog).add_argument


def _common_options(add: Any) -> None:
    add("--quiet", action="store_true", help="show no progress bar")
    add("--debug", action="store_true", help="show the traceback of an error")


def _sweep_options(commands: Any) -> None:
    add = _command(
        commands, _sweep,
        "train with many learning rates and batch sizes; find the stable and the best ones",
        "example: gradnoise sweep train.py:factory --batch-sizes 8 32 128 --epochs 5 "
        "--out sweep.jsonl --plot sweep.png",
    )  # fmt: skip
    add("target", help=f"{TARGET}, SGD or Adam; it is called for every model that is trained")
    add("--batch-sizes", type=_whole(1), nargs="+", default=[4, 16, 64, 256], metavar="B",
        help="batch sizes (default 4 16 64 256)")  # fmt: skip
    add("--lrs", type=POSITIVE, nargs="+",
        default=[2.0**k for k in range(-6, 4)], metavar="LR",
        help="learning rates (default 1/64 to 8 in factors of 2)")  # fmt: skip
    add("--momentum", type=MOMENTUM,
        help="momentum (default that of the factory's optimizer, else 0)")  # fmt: skip
    add("--epochs", type=POSITIVE,
        help="length of the runs in passes over the data (default 10)")  # fmt: skip
    add("--steps", type=_whole(1), help="length of the runs in steps")
    add("--seeds", type=_whole(1), default=1, help="how many seeds to train with (default 1)")
    add("--out", type=Path, metavar="FILE",
        help="save finished runs; continue from them if it exists")  # fmt: skip
    add("--plot", type=Path, metavar="FILE", help="save the picture (png, pdf, svg, jpg)")
    _common_options(add)


def _validate_options(commands: Any) -> None:
    about = "compare every estimator with analytic problems; exit code 1 if any is wrong"
    add = _command(commands, _validate, about)
    add("--seed", type=_whole(0), default=0, help="seed of samples and directions (default 0)")
    _common_options(add)


def _profile_options(commands: Any) -> None:
    about = "measure one model; print what follows for batch size and learning rate"
    example = "example: gradnoise profile train.py:factory --batch-size 64 --lr 0.1 --plot map.png"
    add = _command(commands, _profile, about, example)
    add("target", help=TARGET)
    add("--samples", type=_whole(2), default=4096, help="samples to measure at most (default 4096)")
    add("--population", default="dataset", help="what the intervals are about: dataset (default), "
        "distribution, or a number of samples")  # fmt: skip
    add("--batch-size", type=_whole(1), help="batch size in training (default: the DataLoader's)")
    add("--lr", type=POSITIVE,
        help="learning rate in training; it is judged together with the batch size")  # fmt: skip
    add("--momentum", type=MOMENTUM,
        help="momentum in training")  # fmt: skip
    add("--metric", default="auto", help="euclidean: learning rates of plain SGD; optimizer: those "
        "of the optimizer that the factory returns, after it has taken steps; auto (default): "
        "optimizer for Adam and other adaptive ones, else euclidean")  # fmt: skip
    add("--epochs", type=_whole(0), help="digits only: train so many epochs first (default 5)")
    add("--engine", default="auto", help="how per-sample gradients are computed: auto (default), "
        "hooks, functional, backpack or loop")  # fmt: skip
    add("--probes", type=_whole(2), default=PROBES,
        help=f"random directions for tr(HΣ) at most (default {PROBES})")  # fmt: skip
    add("--accuracy", type=_number(lambda x: 0 <= x < math.inf, "a relative error of at least 0"),
        default=ACCURACY, help=f"relative error of tr(HΣ) at which no further directions are drawn "
        f"(default {ACCURACY})")  # fmt: skip
    add("--seed", type=_whole(0), default=0, help="seed of samples and directions (default 0)")
    add("--json", type=Path, metavar="FILE", help="save the profile as JSON")
    add("--plot", type=Path, metavar="FILE",
        help="save the picture, learning rate against batch size (png, pdf, svg, jpg)")  # fmt: skip
    _common_options(add)


COMMANDS = {"profile": _profile, "sweep": _sweep, "validate": _validate}


if __name__ == "__main__":
    sys.exit(main())
