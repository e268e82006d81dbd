"""Infinities and nan in JSON as the strings "inf", "-inf", "nan": it has no such numbers."""

from __future__ import annotations

import math
from collections.abc import Container
from typing import Any

SPECIAL = {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}


def encode(value: Any) -> Any:
    """Dicts, lists and tuples with infinities and nan as strings; tuples become lists."""
    if isinstance(value, dict):
        return {key: encode(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [encode(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def decode(value: Any, numbers: Container[str], key: str = "") -> Any:
    """The value that `encode` was given, except that tuples are lists.

    Args:
        value: parsed JSON.
        numbers: the names whose values are numbers. Other strings are left as they are, because a
            name or a text may be "nan".
        key: the name that the value stands under.

    Raises:
        KeyError: a string under one of these names that is no number.
    """
    if isinstance(value, dict):
        return {name: decode(item, numbers, name) for name, item in value.items()}
    if isinstance(value, list):
        return [decode(item, numbers, key) for item in value]
    if isinstance(value, str) and key in numbers:
        return SPECIAL[value]
    return value
