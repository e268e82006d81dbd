"""The site builds without a warning, and has every page and every public name."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import gradnoise as gn
from scripts import reference
from scripts.docstrings import markdown

ROOT = Path(__file__).parents[2]
SOURCES = re.findall(r"[\w/]+\.md", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site as `make docs` builds it; a warning is an error."""
    folder = tmp_path_factory.mktemp("site")
    program = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    own = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    run = subprocess.run(program, cwd=ROOT, env=own, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    return folder


def test_every_page_is_in_the_navigation_once() -> None:
    pages = {str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")}
    assert sorted(SOURCES) == sorted(pages | set(reference.pages()))


def test_every_public_name_has_its_entry(site: Path) -> None:
    addresses = [site / name.replace(".md", ".html") for name in reference.pages()]
    texts = [page.read_text(encoding="utf-8") for page in addresses]
    for name in gn.__all__:
        assert sum(f'id="gradnoise.{name}"' in text for text in texts) == 1, name


def test_the_index_links_to_the_entries(site: Path) -> None:
    index = (site / "api.html").read_text(encoding="utf-8")
    linked = re.findall(r'href="reference/\w+\.html#gradnoise\.(\w+)"', index)
    assert sorted(linked) == sorted(gn.__all__)


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert not re.findall(r'(?:src|rel="stylesheet" href)="https?://[^"]+', text), page


def test_a_list_behind_a_line_is_one() -> None:
    text = "two:\n- a\n  more\n- b\n```text\nc:\n- d\n```\n"
    assert reference.with_room(text) == text.replace("two:\n", "two:\n\n")


def test_sections_of_a_docstring_become_markdown() -> None:
    text = """One line with ε* and `a*`.

    Args:
        low, high: ends of
            the interval.
        rest: others: all.

    Raises:
        ArgumentError: it is wrong.

    Source: a paper, docs/faq.md.

    Example:
        >>> 1 + 1
        2
    """
    assert markdown(text).split("\n\n") == [
        "One line with ε\\* and `a*`.",
        "**Args**",
        "- `low`, `high`: ends of the interval.\n- `rest`: others: all.",
        "**Raises**",
        "- `ArgumentError`: it is wrong.",
        "Source: a paper, [docs/faq.md](../faq.md).",
        "**Example**",
        "```pycon\n>>> 1 + 1\n2\n```",
    ]
