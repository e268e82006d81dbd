"""The one direction of the imports; a file that has no room fails."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "gradnoise"

# from the first to the last on the way of the data; a file may import from its own room and above
ROOMS = (
    (
        "vocabulary",
        [
            *("errors", "trees", "sums", "probes", "estimate", "skew", "ratio", "canvas"),
            *("resampling", "momentum"),
        ],
    ),
    (
        "problem",
        [
            *("guard", "losses", "memory", "metric", "objective", "checks", "samples", "problem"),
            *("rescaled", "directional"),
        ],
    ),
    ("engines", ["pergrad"]),
    ("streaming", ["blocks", "layers", "moments", "running", "streaming"]),
    ("linear maps", ["operators", "algebra"]),
    ("estimators", ["estimators"]),
    ("verdict", ["regime", "limits", "stability", "recommendation", "optimizer"]),
    ("shown", ["report", "store"]),
    ("the call", ["result", "profile", "explain"]),
    ("train and see", ["training"]),
    ("validation", ["validation"]),
    ("outlets", ["digits", "cli"]),
)
BESIDE = ["toy"]  # truths: they import vocabulary, and validation alone imports them
FRONT_DOOR = "__init__"


def room_of(module: str) -> int:
    """Position of a module's room."""
    for position, (_, modules) in enumerate(ROOMS):
        if module in modules:
            return position
    raise AssertionError(f"{module} has no room: give it one in tests/test_layers.py")


def files() -> list[Path]:
    return [p for p in sorted(PACKAGE.rglob("*.py")) if p != PACKAGE / f"{FRONT_DOOR}.py"]


def top(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """Top-level modules of ours that a file imports when it runs."""
    found = set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    package = ["gradnoise", *path.relative_to(PACKAGE).parent.parts]
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom) or id(node) in typing_only:
            assert not (isinstance(node, ast.Import) and "gradnoise" in ast.unparse(node))
            continue
        base = package[: len(package) - node.level + 1] if node.level else []
        names = [*base, *(node.module.split(".") if node.module else [])]
        if names[:1] == ["gradnoise"]:
            found |= {names[1]} if len(names) > 1 else {alias.name for alias in node.names}
    return found


@pytest.mark.parametrize("path", files(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_file_imports_only_from_its_own_room_and_above(path: Path) -> None:
    own = top(path)
    if own in BESIDE:
        assert imported(path) <= {"errors", "momentum", "probes", "trees", own}
        return
    for module in imported(path) - {own}:
        if module in BESIDE:
            assert own == "validation", f"{own} imports {module}"
            continue
        assert room_of(module) <= room_of(own), f"{own} imports {module} from further down"


def test_no_import_of_ours_hides_inside_a_function() -> None:
    for path in files():
        for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(function, ast.FunctionDef):
                inside = [n for n in ast.walk(function) if isinstance(n, ast.ImportFrom)]
                assert not any(n.level for n in inside), f"{path.name}: {function.name}"


def test_every_room_holds_files_that_exist() -> None:
    existing = {top(path) for path in files()}
    assert existing == {m for _, modules in ROOMS for m in modules} | set(BESIDE)
