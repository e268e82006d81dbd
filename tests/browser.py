"""A headless Chromium for tests of pages; `python -m tests.browser` installs one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
MISSING = "the tests of pages need Chromium: install it, or run `playwright install chromium`"


def chromium(started: Any) -> str | None:
    """The path of the browser of the system, or of the one that playwright has installed."""
    own = [started.chromium.executable_path]
    return next(filter(None, map(shutil.which, [*NAMES, *own])), None)


@contextmanager
def browser() -> Iterator[Any]:
    """A running browser without a window; where there is none tests fail, they are not skipped."""
    with sync_playwright() as started:
        path = chromium(started)
        assert path, MISSING
        running = started.chromium.launch(executable_path=path, args=["--no-sandbox"])
        try:
            yield running
        finally:
            running.close()


@contextmanager
def opened(running: Any, path: Path, width: int = 1280, scheme: str = "light") -> Iterator[Page]:
    """A page with all charts drawn; a word on its console, or a request, is an error."""
    context = running.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True
    )
    page = context.new_page()
    told: list[str] = []
    page.on("console", lambda message: told.append(message.text))
    page.on("pageerror", lambda error: told.append(str(error)))
    page.on("request", lambda request: told.append(request.url))
    page.goto(path.as_uri())
    page.wait_for_function("document.body.dataset.drawn !== undefined")
    yield page
    context.close()
    assert told == [path.as_uri()]


def install() -> int:
    """From Debian's packages where that is possible, else as playwright does it."""
    with sync_playwright() as started:
        if chromium(started):
            return 0
    if shutil.which("apt-get") and os.geteuid() == 0:
        quiet = {"stdout": subprocess.DEVNULL, "check": False}
        subprocess.run(["apt-get", "update"], **quiet)  # type: ignore[call-overload]
        command = ["apt-get", "install", "--yes", "--no-install-recommends", "chromium"]
        if subprocess.run(command, **quiet).returncode == 0:  # type: ignore[call-overload]
            return 0
    code = subprocess.run([sys.executable, "-m", "playwright", "install", "chromium"]).returncode
    if code:
        print(MISSING, file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(install())
