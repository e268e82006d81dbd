"""The user's file of a command: loaded, its factory called, its errors told with file and line."""

from __future__ import annotations

import argparse
import ast
import importlib
import importlib.util
import inspect
import math
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from ..errors import ArgumentError, GradNoiseError
from ..problem.samples import Samples
from ..problem.state.guard import untouched
from ..toy.digits import BATCH_SIZE, digits
from .arguments import one_line


def factory_of(target: str) -> Callable[[], tuple[Any, Any, Any, Any]]:
    """A function that calls the factory; the file is executed once, here."""
    path, name = _path_of(target)
    with _inside(target, path):
        factory = _function(_loaded(path), name, target)

    def make() -> tuple[Any, Any, Any, Any]:
        with _inside(target, path):
            return _four(factory(), target)

    return make


def with_optimizer(options: argparse.Namespace) -> tuple[Any, Any, Any, Any]:
    """Model, loss, data and the optimizer that trains the model, as the target names them.

    Raises:
        ArgumentError: the factory returned no optimizer.
    """
    if options.target == "digits":
        options.batch_size = options.batch_size or BATCH_SIZE
        return digits()
    made = factory_of(options.target)()
    check_optimizer(made, options.target)
    return made


def check_optimizer(made: tuple[Any, Any, Any, Any], target: str) -> None:
    """Raise ArgumentError unless the factory has returned an optimizer."""
    if made[3] is None:
        raise ArgumentError(
            f"{target} returned no optimizer, and runs go on from one: return (model, loss_fn, "
            f"data, optimizer), the optimizer that trains the model, with its state"
        )


def samples_of(data: Any, epochs: float, option: str) -> int:
    """How many samples so many passes over the data take; `option` asked for them.

    Raises:
        ArgumentError: the length of the data is not known.
    """
    with untouched(nn.Identity(), data):
        found = Samples.draw(data, max_samples=2, least=1).population
    if math.isinf(found):
        raise ArgumentError(
            f"{option} needs data of a known length; gradnoise advise takes --budget in samples"
        )
    return max(1, round(epochs * found))


@contextmanager
def threads_of(target: str) -> Iterator[None]:
    """One thread for the built-in network, which is so small that others would wait for them."""
    before = torch.get_num_threads()
    torch.set_num_threads(1 if target == "digits" else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _inside(target: str, path: Path) -> Iterator[None]:
    """Errors in the user's file are reported with file and line; it finds no arguments of ours."""
    arguments, sys.argv = sys.argv, [str(path)]
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
    finally:
        sys.argv = arguments


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
    """The file and the name of the function; `pkg.train` is pkg/train, without a suffix."""
    file, _, name = target.rpartition(":")
    path = Path(file)
    if not file or not name.isidentifier():
        raise ArgumentError(
            f"expected 'digits' or 'path/to/file.py:factory'; got {target!r}"
            f"{_functions_of(Path(target))}"
        )
    if path.is_file():
        return path, name
    if path.suffix != ".py" and all(part.isidentifier() for part in file.split(".")):
        return Path(*file.split(".")), name
    raise ArgumentError(f"there is no file {file}")


def _loaded(path: Path) -> ModuleType:
    """The user's file or module, executed. What lies in the current folder can be imported."""
    if not path.is_file():
        sys.path.insert(0, str(Path.cwd()))  # as `python -m` does
        return importlib.import_module(".".join(path.parts))
    private = f"gradnoise_target_{path.stem}"  # the file may be called like a library
    spec = importlib.util.spec_from_file_location(private, path)
    if spec is None or spec.loader is None:
        raise ArgumentError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[private] = module  # as an import would: dataclasses and pickling look it up
    sys.path.insert(0, str(path.parent.resolve()))  # the file's own neighbours can be imported
    sys.path.append(str(Path.cwd()))
    spec.loader.exec_module(module)
    return module


def _function(module: ModuleType, name: str, target: str) -> Any:
    """The factory, which can be called without arguments."""
    factory = getattr(module, name, None)
    if not callable(factory):
        where = target.rpartition(":")[0]
        functions = _functions_of(Path(module.__file__ or where))
        raise ArgumentError(f"{where} has no function {name!r}{functions}")
    needed = _needed_arguments(factory)
    if needed:
        raise ArgumentError(
            f"{target} needs the arguments {', '.join(needed)}, and is called without any: "
            f"give them default values"
        )
    if inspect.iscoroutinefunction(factory):
        raise ArgumentError(f"{target} is async; make it an ordinary function")
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
    own = [frame for frame in frames if _is_of(frame.filename, path)]
    return f" at {_line(own[-1])}" if own else ""


def _is_of(file: str, path: Path) -> bool:
    """Whether a file is the user's: the one that was given, or of the module of this name."""
    if path.is_file():
        return Path(file).resolve() == path.resolve()
    names = Path(file).with_suffix("").parts
    return path.parts in (names[-len(path.parts) :], names[:-1][-len(path.parts) :])


def _line(frame: traceback.FrameSummary) -> str:
    return f"{Path(frame.filename).name}, line {frame.lineno} ({frame.line})"


def _told(error: Exception) -> str:
    """The error in a line, with what to do about imports that fail."""
    text = one_line(error)
    if not isinstance(error, ImportError):
        return text
    if "relative import" in str(error):
        return (
            f"{text}. The file is loaded by itself: name it as a module, package.file:factory, "
            f"in the folder that holds the package"
        )
    return f"{text}. Install it, or set PYTHONPATH to the folder that holds it"
