"""`python -m zoo.table`: what the cases found, as the table of docs/models.md."""

from __future__ import annotations

import json
from pathlib import Path

FOUND = Path(__file__).parent / "out"
PAGE = Path(__file__).parents[1] / "docs" / "models.md"
START, END = "<!-- zoo: written by `make zoo` -->", "<!-- end of zoo -->"
COLUMNS = ("model", "P", "unit", "engine", "held to autograd", "curvature", "passes")


def rows() -> list[dict[str, str]]:
    """All cases that were held, package by package."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in FOUND.glob("*.json")]
    return sorted(found, key=lambda row: (row["package"], row["name"]))


def table(found: list[dict[str, str]]) -> str:
    """As Markdown."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|---" * len(COLUMNS) + "|"]
    for package in dict.fromkeys(row["package"] for row in found):
        lines.append(f"| **{package}** |" + " |" * (len(COLUMNS) - 1))
        lines += [_line(row) for row in found if row["package"] == package]
    return "\n".join(lines)


def _line(row: dict[str, str]) -> str:
    names = ("name", "parameters", "unit", "engine", "checked", "curvature", "cost")
    return "| " + " | ".join(str(row[name]) for name in names) + " |"


def summary(found: list[dict[str, str]]) -> str:
    """How many, in one sentence."""
    groups = sum(row["unit"].startswith("group") for row in found)
    drawn = sum("draws" in row["unit"] for row in found)
    curved, short = (sum(row["curvature"] == word for row in found) for word in ("yes", "λ"))
    more = f", λ of {short} more" if short else ""
    return (
        f"{len(found)} models: {groups} in groups, {len(found) - groups} sample by sample, "
        f"{drawn} with replayed draws; {curved} profiles with curvature{more}."
    )


def main() -> None:
    """Write summary and table between the marks of the page."""
    found, page = rows(), PAGE.read_text(encoding="utf-8")
    before, rest = page.split(START)
    after = rest.split(END)[1]
    made = f"{before}{START}\n{summary(found)}\n\n{table(found)}\n{END}{after}"
    PAGE.write_text(made, encoding="utf-8")
    print(summary(found))


if __name__ == "__main__":
    main()
