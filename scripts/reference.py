"""A hook of mkdocs: the pages of the API reference, written from docs/api.md.

Every section of docs/api.md becomes a page reference/SECTION.md with the signature and the
docstring of each name that it lists; docs/api.md itself links to them. The docstrings are read from
the sources (griffe follows `gradnoise/__init__.pyi`), nothing is imported.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
INDEX = "api.md"
LISTED = re.compile(r"^- `gn\.(\w+)(\([^`]*\))?`", re.M)
TEXT_THEN_LIST = re.compile(r"^(?![-|<#\s])(.*\S)\n(?=- )", re.M)
INHERITED = {"Measurement": ["moments"]}  # of its base class, which is not public


def sections(index: str) -> dict[str, list[str]]:
    """The names that each section of the index lists, by the section's title."""
    parts = re.split(r"^## (.+)$", index, flags=re.M)[1:]
    listed = {
        title: [name for name, _ in LISTED.findall(text)]
        for title, text in zip(parts[::2], parts[1::2], strict=True)
    }
    return {title: names for title, names in listed.items() if names}


def address(title: str) -> str:
    """reference/linear_algebra.md for "Linear algebra"."""
    words = re.findall(r"\w+", title.partition(":")[0].lower())
    return f"reference/{'_'.join(words)}.md"


def page(title: str, names: list[str]) -> str:
    """The Markdown of one page: mkdocstrings puts the docstring of each name in."""
    start = f"# {title}\n\n`import gradnoise as gn`. [All public names](../{INDEX}).\n"
    return start + "".join(map(entry, names))


def entry(name: str) -> str:
    """One name, and which methods of its base classes are public."""
    inherited = f"\n      inherited_members: {INHERITED[name]}" if name in INHERITED else ""
    return f"\n::: gradnoise.{name}\n    options:\n      heading: gn.{name}{inherited}\n"


def pages() -> dict[str, str]:
    """Every page of the reference, by its address."""
    index = (ROOT / "docs" / INDEX).read_text(encoding="utf-8")
    return {address(title): page(title, names) for title, names in sections(index).items()}


def linked(index: str) -> str:
    """docs/api.md with a link from each name to its entry; the arguments stay as code."""
    return LISTED.sub(_link, index)


def _link(found: re.Match[str]) -> str:
    arguments = f"`{found[2]}`" if found[2] else ""
    return f"- [`gn.{found[1]}`][gradnoise.{found[1]}]{arguments}"


def on_files(files: Any, config: Any) -> Any:
    """Add the pages to the site."""
    from mkdocs.structure.files import File  # the tests read this file without mkdocs

    for name, text in pages().items():
        files.append(File.generated(config, name, content=text))
    return files


def with_room(markdown: str) -> str:
    """A list right behind a line of text is one on GitHub; here it needs an empty line."""
    parts = re.split(r"(^```.*?^```$)", markdown, flags=re.S | re.M)
    parts[::2] = [TEXT_THEN_LIST.sub(r"\1\n\n", part) for part in parts[::2]]
    return "".join(parts)


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Room before lists; the names of the index become links."""
    return with_room(linked(markdown) if page.file.src_uri == INDEX else markdown)
