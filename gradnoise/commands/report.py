"""`gradnoise report`."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..profiles.profile import Profile
from .arguments import check_plot, check_writable, tell_written


def run(options: argparse.Namespace) -> int:
    """Print a saved profile, and write its page."""
    page = None if options.text else _page(options)
    if page is not None:
        check_writable(page)
    check_plot(options.plot)
    profile = Profile.load(options.file)
    print(profile.report(full=options.full))
    if page is not None:
        profile.to_html(page)
    if options.plot:
        profile.plot(options.plot)
    return tell_written(page, options.plot)


def _page(options: argparse.Namespace) -> Path | None:
    """Where the page goes; nowhere where the file is one and no other name is given."""
    given: Path | None = options.html
    if given is not None:
        return given
    own: Path = options.file.with_suffix(".html")
    return None if own == options.file else own
