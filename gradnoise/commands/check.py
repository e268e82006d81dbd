"""`gradnoise check`."""

from __future__ import annotations

import argparse

from ..checks.check import check
from ..profiles.profile import Profile
from .arguments import STDOUT, check_targets, tell_written
from .json_output import write_json

NOT_PASSED = 1


def run(options: argparse.Namespace) -> int:
    """Hold a saved profile to rules; the exit code."""
    check_targets(options, options.file)
    profile = Profile.load(options.file)
    found = check(profile, options.rule, allow_unresolved=options.allow_unresolved)
    options.code = 0 if found.passed else NOT_PASSED  # also where the reader stops reading
    if options.json != STDOUT:
        print(found, flush=True)
    write_json(found.to_dict(), options.json)
    tell_written(options.json)
    return int(options.code)
