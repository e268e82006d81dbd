"""A headless Chromium for tests of pages."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


def chromium() -> str:
    """The path of the browser; the tests of pages fail without one, they are not skipped."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    assert found, "the tests of pages need Chromium (make browser, or apt-get install chromium)"
    return found


@contextmanager
def browser() -> Iterator[Any]:
    """A running browser without a window and without a network."""
    with sync_playwright() as started:
        running = started.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
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
