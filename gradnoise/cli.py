"""The command line: `gradnoise profile digits`, `gradnoise advise train.py:factory`.

The arguments are read before anything of torch is imported; the command's own module is.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import io
import os
import re
import shlex
import sys
import traceback
import warnings
from collections.abc import Sequence
from types import ModuleType
from typing import NoReturn

from .commands.arguments import complain, one_line
from .commands.options import COMMANDS
from .files.version import version

USAGE_ERROR = 2
EXAMPLES = """\
examples:
  gradnoise profile digits
  gradnoise profile train.py:factory --batch-size 64 --lr 0.1 --plot map.png
  gradnoise advise train.py:factory --epochs 4

gradnoise COMMAND --help shows the options of a command.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command: 0 when it worked, 1 when validation or a rule failed, 130 if interrupted.

    2 with one line on stderr at any error; --debug shows where.
    """
    for stream in (sys.stdout, sys.stderr):  # a console without Greek letters still gets a report
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    options = _parser().parse_args(arguments)
    given = ["gradnoise", *(sys.argv[1:] if arguments is None else arguments)]
    options.line = shlex.join(given).encode(errors="replace").decode()  # names may be of any bytes
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("default" if options.debug else "ignore")
            return int(_module_of(options.command).run(options))
    except BrokenPipeError:  # the reader has seen enough, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return int(getattr(options, "code", 0))
    except KeyboardInterrupt:
        kept = getattr(options, "out", None)
        more = f"; the same command continues from {kept}" if kept else ""
        complain(f"interrupted{more}")
        return 130
    except Exception as error:  # the user's file runs in here: anything can come out
        if options.debug:
            traceback.print_exc()
        complain(f"error: {one_line(error)}")
        return USAGE_ERROR
    return 0


def _module_of(command: str) -> ModuleType:
    return importlib.import_module(f".commands.{command}", __package__)


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
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=version())
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for add_command in COMMANDS.values():
        add_command(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
