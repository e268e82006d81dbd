"""`gradnoise compare`."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..errors import ArgumentError
from ..profiles.comparison import Comparison, compare
from ..profiles.profile import Profile
from .arguments import STDOUT, check_targets, tell_written
from .json_output import write_json


def run(options: argparse.Namespace) -> int:
    """Compare the first saved profile with each of the others."""
    check_targets(options, *options.files)
    if len(options.files) < 2:
        raise ArgumentError("give two profiles or more: gradnoise compare before.json after.json")
    found = _compared(options)
    if options.json != STDOUT:
        print("\n\n".join(map(str, found)))
    contents = {"format": "gradnoise-comparison", "comparisons": [one.to_dict() for one in found]}
    write_json(contents, options.json)
    return tell_written(options.json)


def _compared(options: argparse.Namespace) -> list[Comparison]:
    names = _names(options.files)
    profiles = [Profile.load(path) for path in options.files]
    return [
        compare(
            profiles[0], other, level=options.level, independent=options.independent,
            names=(names[0], name),
        )
        for other, name in zip(profiles[1:], names[1:], strict=True)
    ]  # fmt: skip


def _names(paths: list[Path]) -> list[str]:
    """The names of the files without their ending, or whole paths where these are alike."""
    short = [path.stem for path in paths]
    return short if len(set(short)) == len(short) else list(map(str, paths))
