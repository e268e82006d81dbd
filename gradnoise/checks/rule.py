"""Rules in a few words: "lr < mean_square_lr", "batch_size <= 2 * noise_scale", "age < 7 days".

    rule  = side ("<" | "<=" | ">" | ">=") side  |  ready-made name ["=" argument]
    side  = [number "*"] name  |  name ("*" | "/") number  |  number [unit of time]

The text is split into numbers, names and signs and compared with these forms; nothing is evaluated.
"""

from __future__ import annotations

import difflib
import math
import re
from dataclasses import dataclass

from ..errors import ArgumentError
from .vocabulary import OLDER, READY, RESOLVED, SECONDS, SETTLED, TIME, UNITS, WRITTEN_OUT

FORM = 'a rule is "NAME < NUMBER * NAME", such as "lr < mean_square_lr" or "age < 7 days"'
SIGNS = {"<": "<", "<=": "<=", "≤": "<=", ">": ">", ">=": ">=", "≥": ">="}
TOKEN = re.compile(
    r"\s*(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)|\s*(?P<word>[^\W\d]\w*)|\s*(?P<sign><=|>=|==|!=|\S)"
)


@dataclass(frozen=True)
class Side:
    """A number, or a factor times a quantity.

    Args:
        factor: the number itself where `name` is empty; times in seconds.
        name: of the quantity.
        unit: of the side; empty for a number, which fits every unit but that of time.
    """

    factor: float
    name: str = ""
    unit: str = ""


@dataclass(frozen=True)
class Rule:
    """left `sign` right.

    Args:
        text: as it was given.
    """

    text: str
    left: Side
    sign: str
    right: Side


@dataclass(frozen=True)
class Ready:
    """A rule that is no comparison: "resolved" or "settled".

    Args:
        text: as it was given.
        kind: its name.
        names: the quantities that it is about.
    """

    text: str
    kind: str
    names: tuple[str, ...] = ()


def parse(text: str) -> Rule | Ready:
    """The rule that a text says.

    Raises:
        ArgumentError: another form, a name that is not known, or units that do not fit.
    """
    if not isinstance(text, str):
        raise ArgumentError(f"a rule is a text such as 'lr < mean_square_lr'; got {text!r}")
    stripped = text.strip()
    name, _, argument = (part.strip() for part in stripped.partition("="))
    if name in (RESOLVED, SETTLED, OLDER, *WRITTEN_OUT):
        return _ready(text, name, argument)
    if re.fullmatch(r"[\w-]*", stripped):
        raise ArgumentError(f"rule {text!r}: {unknown(stripped, READY) if stripped else FORM}")
    return _comparison(text, stripped)


def unknown(name: str, known: tuple[str, ...]) -> str:
    """That a name is not known, the nearest ones, and all."""
    near = difflib.get_close_matches(name, known, 3)
    hint = f"; did you mean {' or '.join(near)}?" if near else "."
    return f"{name!r} is not known{hint} There are {', '.join(known)}"


def _ready(text: str, name: str, argument: str) -> Rule | Ready:
    if name == OLDER:
        if not argument:
            raise ArgumentError(f"rule {text!r}: say how old it may be, such as {OLDER}=7d")
        return _comparison(text, f"age <= {argument}")
    if name == RESOLVED:
        names = tuple(part.strip() for part in argument.split(",")) if argument else ()
        for one in names:
            _unit_of(text, one)
        return Ready(text, name, names)
    if argument:
        raise ArgumentError(f"rule {text!r}: {name} takes nothing after it")
    return Ready(text, name) if name == SETTLED else _comparison(text, WRITTEN_OUT[name])


def _comparison(text: str, form: str) -> Rule:
    tokens = [
        (kind, found[kind]) for found in TOKEN.finditer(form) if (kind := str(found.lastgroup))
    ]
    signs = [i for i, (kind, token) in enumerate(tokens) if kind == "sign" and token in SIGNS]
    if len(signs) != 1:
        found = "no comparison" if not signs else "more than one comparison"
        raise ArgumentError(f"rule {text!r} has {found} (<, <=, >, >=): {FORM}")
    at = signs[0]
    left, right = _side(text, tokens[:at]), _side(text, tokens[at + 1 :])
    _check_units(text, left, right)
    return Rule(text, left, SIGNS[tokens[at][1]], right)


def _side(text: str, tokens: list[tuple[str, str]]) -> Side:
    form = " ".join(token if kind == "sign" else kind for kind, token in tokens)
    words = [token for _, token in tokens]
    if form == "word":
        return _quantity(text, 1.0, words[0])
    if form == "number * word":
        return _quantity(text, float(words[0]), words[2])
    if form == "word * number":
        return _quantity(text, float(words[2]), words[0])
    if form == "word / number":
        return _quantity(text, 1 / float(words[2]) if float(words[2]) else math.inf, words[0])
    if form == "number":
        return Side(float(words[0]))
    if form == "- number":
        return Side(-float(words[1]))
    if form == "number word":
        return _time(text, float(words[0]), words[1])
    got = " ".join(words) or "nothing"
    raise ArgumentError(f"rule {text!r}: {got!r} is neither a number nor a quantity; {FORM}")


def _quantity(text: str, factor: float, name: str) -> Side:
    unit = _unit_of(text, name)
    if not 0 < factor < math.inf:
        raise ArgumentError(f"rule {text!r}: a factor must be a positive number")
    return Side(factor, name, unit)


def _unit_of(text: str, name: str) -> str:
    if name not in UNITS:
        raise ArgumentError(f"rule {text!r}: {unknown(name, tuple(UNITS))}")
    return UNITS[name]


def _time(text: str, number: float, unit: str) -> Side:
    if unit in UNITS:
        raise ArgumentError(f"rule {text!r}: put * between a number and a name")
    if unit not in SECONDS:
        raise ArgumentError(f"rule {text!r}: {unit!r} is no unit of time ({', '.join(SECONDS)})")
    return Side(number * SECONDS[unit], unit=TIME)


def _check_units(text: str, left: Side, right: Side) -> None:
    if not left.name and not right.name:
        raise ArgumentError(f"rule {text!r} names no quantity: {FORM}")
    if TIME in (left.unit, right.unit) and "" in (left.unit, right.unit):
        raise ArgumentError(f"rule {text!r}: age needs a unit of time, such as 7 days")
    if left.unit and right.unit and left.unit != right.unit:
        sides = f"{left.name or 'left'} is in {left.unit} and {right.name or 'right'} in"
        raise ArgumentError(f"rule {text!r} compares different units: {sides} {right.unit}")
