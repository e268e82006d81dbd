"""Every file of the package has a test file of its name, in the folder of its name."""

from __future__ import annotations

from pathlib import Path

from scripts.import_graph import PACKAGE

TESTS = Path(__file__).parents[1]
ACROSS = "whole"  # tests of several files at once


def test_tests_mirror_the_sources_one_to_one() -> None:
    sources = {
        path.relative_to(PACKAGE).with_suffix("")
        for path in PACKAGE.rglob("*.py")
        if path.name != "__init__.py"
    }
    tests = {
        path.relative_to(TESTS).parent / path.stem.removeprefix("test_")
        for path in TESTS.rglob("test_*.py")
        if path.relative_to(TESTS).parts[0] != ACROSS
    }
    assert sorted(map(str, sources - tests)) == []
    assert sorted(map(str, tests - sources)) == []
