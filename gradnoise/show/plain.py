"""Reports in ASCII, for a terminal or a file that has no Greek letters."""

from __future__ import annotations

import unicodedata
from typing import Any

from rich.table import Table
from rich.text import Text

WORDS = {  # longer ones first
    "trΣ_ll": "tr(Sigma_ll)",
    "trΣ": "tr(Sigma)",
    "HΣ": "H Sigma",
    "GᵀHG": "G'HG",
    "ᵀ": "'",
    "P^-½": "P^(-1/2) ",
    "P^½": "P^(1/2) ",
    "½": "1/2 ",
    "λ": "lambda",
    "Σ": "Sigma",
    "ε": "eps",
    "ℓ": "l",
    "β": "beta",
    "Δ": "Delta",
    "²": "^2",
    "³": "^3",
    "⁴": "^4",
    "√": "sqrt ",
    "‖": "|",
    "∞": "inf",
    "±": "+-",
    "≥": ">=",
    "≤": "<=",
    "×": "x",
    "·": "*",
    "–": "-",
    "−": "-",
    "─": "-",
    "…": "...",
    "→": "->",
    "’": "'",
    "“": '"',
    "”": '"',
}


def in_ascii(text: str) -> str:
    """The text in ASCII: Greek letters in words, ^2 for powers, no accents, ? for other signs."""
    if text.isascii():
        return text
    for sign, word in WORDS.items():
        text = text.replace(sign, word)
    parts = unicodedata.normalize("NFKD", text)
    return (
        "".join(p for p in parts if not unicodedata.combining(p))
        .encode("ascii", "replace")
        .decode()
    )


def can_show(encoding: str | None) -> bool:
    """Whether an encoding has the signs of a report; None stands for text that is not encoded."""
    try:
        "λΣᵀ½²─≥".encode(encoding or "utf-8")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def part_in_ascii(part: Text | Table) -> Text | Table:
    """A text or a table in ASCII; tables are set anew, because words are longer than letters."""
    if isinstance(part, Text):
        return Text(in_ascii(part.plain))
    plain = Table(
        box=part.box, pad_edge=part.pad_edge, show_edge=part.show_edge,
        show_header=part.show_header, padding=part.padding, collapse_padding=part.collapse_padding,
    )  # fmt: skip
    for column in part.columns:
        plain.add_column(
            in_ascii(str(column.header)),
            justify=column.justify,
            no_wrap=column.no_wrap,
            overflow=column.overflow,
        )
    for cells in zip(*(column.cells for column in part.columns), strict=True):
        plain.add_row(*map(_cell, cells))
    return plain


def _cell(cell: Any) -> str:
    return in_ascii(str(cell))
