"""Print the import graph of gradnoise/: `python scripts/import_graph.py`.

The folders stand in the order of the data's way. A file imports from folders above its own and from
its own folder, never from below; this is also true of imports for types alone. Exit code 1 and the
arrows that are wrong, where it is not.
"""

from __future__ import annotations

import ast
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "gradnoise"

# from the first to the last on the way of the data; "." is the root of the package
ORDER = (
    "errors",
    "files",
    "tensors",
    "ranks",
    "statistics",
    "show",
    "learning_rate",
    "history",
    "problem/state",
    "problem/losses",
    "problem",
    "per_sample/contract",
    "per_sample/hooks",
    "per_sample",
    "moments",
    "linalg",
    "linalg/density",
    "operators",
    "measurement",
    "estimators",
    "estimators/curvature",
    "estimators/noise",
    "estimators/from_arrays",
    "estimators/diagnostics",
    "estimators/covariance",
    "profiles",
    "checks",
    "monitor",
    "integrations",
    "training",
    "sweeps",
    "trials",
    "pictures",
    "toy",
    "validation",
    "commands",
    "cli",
    "__main__",
)


def files() -> list[Path]:
    """Every module; the front door and docstrings of folders import what they like or nothing."""
    return [p for p in sorted(PACKAGE.rglob("*.py")) if p != PACKAGE / "__init__.py"]


def folder(path: Path) -> str:
    """The entry of ORDER that a file belongs to."""
    parent = path.relative_to(PACKAGE).parent
    return path.stem if parent == Path() else parent.as_posix()


def imported(path: Path) -> set[Path]:
    """Files of ours that a file imports, for whatever reason and wherever in it."""
    found: set[Path] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            assert not any(a.name.split(".")[0] == "gradnoise" for a in node.names), path
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        base = path.parents[node.level - 1].joinpath(*(node.module or "").split("."))
        for name in [base, *(base / alias.name for alias in node.names)]:
            found |= {p for p in (name.with_suffix(".py"), name / "__init__.py") if p.exists()}
    return {p for p in found if p != PACKAGE / "__init__.py"} - {path}


def upward() -> list[str]:
    """Imports from a folder below one's own."""
    return [
        f"{path.relative_to(PACKAGE)} imports {other.relative_to(PACKAGE)}"
        for path in files()
        for other in sorted(imported(path))
        if ORDER.index(folder(other)) > ORDER.index(folder(path))
    ]


def circle() -> list[Path]:
    """Files that import one another in a circle, or nothing."""
    try:
        TopologicalSorter({path: imported(path) for path in files()}).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def main() -> int:
    for name in ORDER:
        own = [path for path in files() if folder(path) == name]
        above = {folder(p) for path in own for p in imported(path)} - {name}
        print(f"{name} ({len(own)}) <- {', '.join(n for n in ORDER if n in above) or 'nothing'}")
    wrong = upward()
    ring = " -> ".join(str(path.relative_to(PACKAGE)) for path in circle())
    print(*wrong, f"circle: {ring}" if ring else "no circle", sep="\n")
    return 1 if wrong or ring else 0


if __name__ == "__main__":
    sys.exit(main())
