"""Infinities and nan to strings and back; other strings stay strings."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from gradnoise.files.json import decode, encode

VALUES = {"low": -math.inf, "high": math.inf, "inner": {"high": math.nan, "name": "nan"}, "n": 3}


def test_what_is_encoded_is_strict_json() -> None:
    text = json.dumps(encode(VALUES), allow_nan=False)
    assert json.loads(text) == {
        "low": "-inf",
        "high": "inf",
        "inner": {"high": "nan", "name": "nan"},
        "n": 3,
    }


def test_it_is_decoded_to_what_it_was() -> None:
    assert repr(decode(encode(VALUES), ("low", "high"))) == repr(VALUES)


def test_names_that_are_not_listed_keep_their_strings() -> None:
    assert decode({"high": "inf", "name": "nan"}, ("high",)) == {"high": math.inf, "name": "nan"}


@pytest.mark.parametrize("kind", [list, tuple])
def test_lists_and_tuples_are_encoded_inside(kind: Any) -> None:
    assert encode({"values": kind([1.5, math.inf])}) == {"values": [1.5, "inf"]}


def test_a_string_where_a_number_is_due_is_an_error() -> None:
    with pytest.raises(KeyError, match="a lot"):
        decode({"high": "a lot"}, ("high",))


def test_numbers_in_lists_are_read_as_numbers() -> None:
    values = {"ends": [1.0, math.inf], "names": ["inf", "nan"], "deep": [{"ends": [-math.inf]}]}
    assert decode(json.loads(json.dumps(encode(values))), ("ends",)) == values
