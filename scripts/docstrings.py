"""Docstrings as Markdown, for the API reference: an extension of griffe.

A line of `Args:` may name several arguments ("low, high: ends of the interval"), which no parser of
Google's style takes. So sections become Markdown here, and types are left to the signature.
"""

from __future__ import annotations

import contextlib
import inspect
import re
from collections.abc import Iterator
from typing import Any

from griffe import Alias, ExprName, Extension, Function, Module, Object

SECTION = re.compile(r"^(Args|Attributes|Returns|Yields|Raises|Example):[ ]*(.*)$")
ITEM = re.compile(r"^\*?\*?\w+(?:, \*?\*?\w+)*$")  # names before the colon
LISTS = ("Args", "Attributes", "Raises")
STAR = re.compile(r"(?<!\*)(?:(?<=\w)\*|\*(?=\w))(?!\*)")  # of ε* or *shape: no emphasis
PAGE = re.compile(r"\bdocs/([\w/]+)\.md\b")  # becomes a link from a page of reference/


class Markdown(Extension):
    """Rewrites every docstring that is loaded, and shows the value of a default that has a name."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = markdown(obj.docstring.value)

    def on_package(self, *, pkg: Module, **_: Any) -> None:
        for function in _functions(pkg):
            for parameter in function.parameters:
                if isinstance(parameter.default, ExprName):
                    parameter.default = _value(parameter.default, pkg) or parameter.default


def _value(name: ExprName, pkg: Module) -> Any:
    """What a constant is defined as; None where griffe does not know it, as in A, B = 1, 2."""
    with contextlib.suppress(KeyError):
        return getattr(pkg.modules_collection[name.canonical_path], "value", None)
    return None


def _functions(within: Object) -> Iterator[Function]:
    """All functions and methods that are defined in a package, a module or a class."""
    for member in within.members.values():
        if isinstance(member, Function):
            yield member
        elif not isinstance(member, Alias):
            yield from _functions(member)


def markdown(docstring: str) -> str:
    """The text with its sections as lists and code blocks."""
    parts = [("", list[str]())]
    for line in inspect.cleandoc(docstring).split("\n"):
        if found := SECTION.match(line):
            parts.append((found[1], ["    " + found[2]] if found[2] else []))
        elif line[:1].strip() and parts[-1][0]:  # text of its own behind a section
            parts.append(("", [line]))
        else:
            parts[-1][1].append(line)
    return "\n\n".join(_section(title, lines).strip("\n") for title, lines in parts)


def _section(title: str, lines: list[str]) -> str:
    if not title:
        return _plain("\n".join(lines))
    text = inspect.cleandoc("\n" + "\n".join(lines))
    if title in LISTS:
        body = "\n".join(f"- {item}" for item in _items(text))
    else:
        body = _fenced(text) if ">>>" in text else _plain(text)
    return f"**{title}**\n\n{body}"


def _items(text: str) -> Iterator[str]:
    """Each argument or error with its description in one line."""
    for item in re.split(r"\n(?=\S)", text):
        names, colon, about = " ".join(item.split()).partition(":")
        if colon and ITEM.match(names):
            code = ", ".join(f"`{name}`" for name in names.split(", "))
            yield f"{code}: {_plain(about.strip())}"
        else:
            yield _plain(f"{names}{colon}{about}")


def _fenced(text: str) -> str:
    """Every run of lines that begins with >>> as a code block."""
    blocks = re.split(r"\n\s*\n", text)
    return "\n\n".join(f"```pycon\n{b}\n```" if b.startswith(">>>") else _plain(b) for b in blocks)


def _plain(text: str) -> str:
    """Outside of code: stars of formulas are characters, and names of pages are links."""
    parts = re.split(r"(`[^`]*`|^ {4}.*$)", text, flags=re.M)
    parts[::2] = [PAGE.sub(r"[docs/\1.md](../\1.md)", STAR.sub(r"\\*", p)) for p in parts[::2]]
    return "".join(parts)
