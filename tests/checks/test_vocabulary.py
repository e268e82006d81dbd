"""The names of rules are those that profiles have."""

from __future__ import annotations

import subprocess
import sys

import pytest

from gradnoise.checks.quantities import quantity
from gradnoise.checks.rule import parse
from gradnoise.checks.vocabulary import READY, SECONDS, TIME, UNITS
from tests.checks.profiles import measured


@pytest.mark.parametrize("name", [name for name in UNITS if name != "age"])
def test_every_name_stands_for_a_number(name: str) -> None:
    found = quantity(measured(), name)
    assert found.low <= found.high


def test_every_quantity_of_a_profile_has_a_name() -> None:
    assert set(measured().estimates) <= set(UNITS)


@pytest.mark.parametrize("text", READY)
def test_every_ready_made_rule_is_one(text: str) -> None:
    assert parse(text).text == text


@pytest.mark.parametrize("unit", SECONDS)
def test_every_unit_of_time_can_be_written(unit: str) -> None:
    rule = parse(f"age < 2 {unit}")
    assert rule.right.factor == 2 * SECONDS[unit]  # type: ignore[union-attr]
    assert rule.right.unit == TIME  # type: ignore[union-attr]


def test_they_are_listed_without_torch() -> None:
    code = "import sys, gradnoise.commands.options; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
