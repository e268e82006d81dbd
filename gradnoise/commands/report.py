"""`gradnoise report`."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..profiles.profile import Profile
from .arguments import check_targets, tell_written


def run(options: argparse.Namespace) -> int:
    """Print a saved profile, and write its page."""
    page = options.html = None if options.text else _page(options)
    check_targets(options, options.file)
    profile = Profile.load(options.file)
    try:  # before the report, which a reader may stop reading
        if page is not None:
            profile.to_html(page)
        if options.plot:
            profile.plot(options.plot)
    finally:
        print(profile.report(full=options.full))
    return tell_written(page, options.plot)


def _page(options: argparse.Namespace) -> Path | None:
    """Where the page goes; nowhere where the file is one and no other name is given."""
    given: Path | None = options.html
    if given is not None:
        return given
    own: Path = options.file.with_suffix(".html")
    return None if own == options.file else own
