"""Several ranks measure what one process does: 1 to 4 of them, started by torchrun."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.launching import Launched
from tests.rank_models import losses, model_of, samples_of
from tests.rank_program import (
    WAYS,
    about,
    by_engines,
    calls,
    kinds_of_data,
    moments_of,
    profiled,
    random,
    sharpness_of,
    single_precision,
)

CLOSE, CLOSE_32 = 1e-6, 1e-4


def entries(found: Any, name: str = "") -> Iterator[tuple[str, list[float]]]:
    """All lists of numbers, by the names that lead to them."""
    if isinstance(found, dict):
        for key, own in found.items():
            yield from entries(own, f"{name}: {key}" if name else key)
    else:
        yield name, [float(x) for x in found]


def assert_same(found: Any, expected: Any, rel: float) -> None:
    own, wanted = dict(entries(found)), dict(entries(expected))
    assert own.keys() == wanted.keys()
    for name, numbers in wanted.items():
        assert own[name] == pytest.approx(numbers, rel=rel, abs=1e-9, nan_ok=True), name


@pytest.mark.parametrize("size", sorted(WAYS))
def test_the_numbers_are_those_of_one_process(size: int, results_of: Launched) -> None:
    ranks = results_of(size, "numbers")
    for found in ranks[1:]:
        assert_same(found, ranks[0], rel=0)  # the same bits
    found, parts = ranks[0], {key for key in ranks[0] if key != "held"}
    kinds = {kind for own in WAYS[size].values() for kind in own}
    alone = {k: profiled(model_of(k), losses, samples_of(k), **about(k, size)) for k in kinds}
    held = {name: alone[name.partition(",")[0]] for name in found["held"]}
    assert len(held) == sum(map(len, WAYS[size].values()))
    assert_same(found["held"], held, CLOSE)
    if "layers" in parts:
        names = [name.split(", ")[:2] for name in found["layers"]]
        alike = {tuple(k): moments_of(model_of(k[0]), samples_of(k[0], int(k[1]))) for k in names}
        expected = {name: alike[tuple(name.split(", ")[:2])] for name in found["layers"]}
        assert_same(found["layers"], expected, CLOSE)
    if "curvature" in parts:
        expected = {}
        for name in found["curvature"]:
            kind = name.partition(",")[0]
            measure = profiled if kind == "mlp" else sharpness_of
            expected[name] = measure(model_of(kind), losses, samples_of(kind), **about(kind, size))
        assert_same(found["curvature"], expected, CLOSE)
    if "engines" in parts:
        assert_same(found["engines"], by_engines(0, 1, {}), CLOSE)
    if "data" in parts:
        expected = kinds_of_data(0, 1, {})
        assert_same(found["data"], {name: expected[name] for name in found["data"]}, CLOSE)


def test_every_call_has_the_numbers_of_one_process(results_of: Launched) -> None:
    found, other = results_of(2, "measured")
    assert_same(other, found, rel=0)
    assert_same(found["calls"], calls(model_of("mlp"), samples_of("mlp")), CLOSE)
    assert_same(found["data"], kinds_of_data(0, 1, {}), CLOSE)
    assert_same(found["float32"], single_precision(0, 1, {}), CLOSE_32)
    own, expected = found["random"], random(0, 1, {})
    assert_same(own["dropout"], expected["dropout"], CLOSE)
    # groups are put together out of the samples of one rank each: others than in one process
    assert own["groups"] == pytest.approx(expected["groups"], rel=0.25)
    assert own["groups"][-1] == expected["groups"][-1]
