"""The one direction of the imports, and the street plan that it follows."""

from __future__ import annotations

import ast
import importlib
import pkgutil
from pathlib import Path

import pytest

import gradnoise as gn
from scripts.import_graph import ORDER, PACKAGE, circle, files, folder, upward

AT_THE_ROOT = {"__init__.py", "__init__.pyi", "__main__.py", "cli.py", "errors.py", "py.typed"}
OPEN = {"pictures", "toy"}  # folders that are themselves public: `gn.toy.LinearRegression`


def test_a_file_imports_only_from_its_own_folder_and_from_those_above() -> None:
    assert upward() == []


def test_no_files_import_one_another_in_a_circle() -> None:
    assert circle() == []


def test_the_order_names_every_folder_once() -> None:
    assert len(ORDER) == len(set(ORDER))
    assert set(ORDER) == {folder(path) for path in files()}


def test_nothing_lies_loose_at_the_root() -> None:
    assert {path.name for path in PACKAGE.iterdir() if path.is_file()} == AT_THE_ROOT


@pytest.mark.parametrize("path", files(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_no_import_hides_inside_a_function_or_from_the_program(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for block in ast.walk(tree):
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING":
            # types of packages that need not be installed; ours are imported as all else
            assert not block.orelse
            assert {node.module.split(".")[0] for node in block.body} == {"matplotlib"}
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef):
            inside = [n for n in ast.walk(function) if isinstance(n, ast.ImportFrom)]
            assert not any(n.level for n in inside), function.name


def test_a_folder_exports_nothing_but_its_modules() -> None:
    for path in files():
        if path.name == "__init__.py" and folder(path) not in OPEN:
            (docstring,) = ast.parse(path.read_text(encoding="utf-8")).body
            assert isinstance(docstring, ast.Expr), path


def test_no_module_has_the_name_of_something_exported_over_it() -> None:
    for package in ("gradnoise", *(f"gradnoise.{name}" for name in OPEN)):
        home = importlib.import_module(package)
        modules = {module.name for module in pkgutil.iter_modules(home.__path__)}
        assert modules & set(home.__all__) <= OPEN
    assert set(OPEN) <= set(gn.__all__)
