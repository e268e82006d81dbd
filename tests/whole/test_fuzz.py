"""Randomised tests repeat themselves in `make test`, and search at large in `make fuzz`."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

from tests.fuzz import examples


def test_in_ci_the_same_examples_are_tried_at_every_run() -> None:
    ci = settings.get_profile("ci")
    assert ci.derandomize
    assert ci.database is None
    assert ci.deadline is None


@pytest.mark.parametrize(("profile", "count"), [("ci", 40), ("fuzz", 800)])
def test_a_test_is_tried_on_as_many_examples_as_the_profile_wants(profile: str, count: int) -> None:
    before = settings.get_current_profile_name()
    settings.load_profile(profile)
    try:
        chosen = examples(40)
    finally:
        settings.load_profile(before)
    assert chosen.max_examples == count
    assert chosen.derandomize == (profile == "ci")


def test_no_test_fixes_its_own_number_of_examples() -> None:
    for path in Path(__file__).parents[1].rglob("test_*.py"):
        if path != Path(__file__):
            assert "@settings(" not in path.read_text(encoding="utf-8"), path.name
