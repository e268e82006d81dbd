"""`gradnoise check`."""

from __future__ import annotations

import argparse

from ..checks.check import check
from ..profiles.profile import Profile
from .arguments import STDOUT, tell_written
from .json_output import check_json, write_json

NOT_PASSED = 1


def run(options: argparse.Namespace) -> int:
    """Hold a saved profile to rules; the exit code."""
    check_json(options.json)
    profile = Profile.load(options.file)
    found = check(profile, options.rule, allow_unresolved=options.allow_unresolved)
    if options.json != STDOUT:
        print(found)
    write_json(found.to_dict(), options.json)
    tell_written(options.json)
    return 0 if found.passed else NOT_PASSED
