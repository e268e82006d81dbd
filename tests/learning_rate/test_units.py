"""Units by name are those of the published schema."""

from __future__ import annotations

import gradnoise as gn
from gradnoise.learning_rate.units import OF_LIMITS, OF_QUANTITIES


def test_they_are_those_of_the_published_schema() -> None:
    schema = gn.Profile.json_schema()
    quantities = schema["properties"]["estimates"]["properties"]
    assert {name: field["unit"] for name, field in quantities.items()} == OF_QUANTITIES
    limits = schema["$defs"]["in_use"]["properties"]
    assert {name: limits[name]["unit"] for name in OF_LIMITS} == OF_LIMITS
