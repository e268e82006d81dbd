"""Several ranks measure what one process does: 1 to 4 of them, started by torchrun."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.launching import results_of
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
def test_the_numbers_are_those_of_one_process(size: int, tmp_path: Path) -> None:
    ranks = results_of(size, "numbers", tmp_path)
    for found in ranks[1:]:
        assert_same(found, ranks[0], rel=0)  # the same bits
    found, parts = ranks[0], {key for key in ranks[0] if key != "held"}
    kinds = {kind for own in WAYS[size].values() for kind in own}
    alone = {k: profiled(model_of(k), losses, samples_of(k), **about(k)) for k in kinds}
    held = {name: alone[name.partition(",")[0]] for name in found["held"]}
    assert len(held) == sum(map(len, WAYS[size].values()))
    assert_same(found["held"], held, CLOSE)
    if "layers" in parts:
        names = [name.split(", ")[:2] for name in found["layers"]]
        alike = {tuple(k): moments_of(model_of(k[0]), samples_of(k[0], int(k[1]))) for k in names}
        expected = {name: alike[tuple(name.split(", ")[:2])] for name in found["layers"]}
        assert_same(found["layers"], expected, CLOSE)
    if "engines" in parts:
        assert_same(found["engines"], by_engines(0, 1, {}), CLOSE)
    if "data" in parts:
        expected = kinds_of_data(0, 1, {})
        assert_same(found["data"], {name: expected[name] for name in found["data"]}, CLOSE)
    if "calls" in parts:
        assert_same(found["calls"], calls(model_of("mlp"), samples_of("mlp")), CLOSE)
        assert_same(found["float32"], single_precision(0, 1, {}), CLOSE_32)
        own, expected = found["random"], random(0, 1, {})
        assert_same(own["dropout"], expected["dropout"], CLOSE)
        # groups are put together out of the samples of one rank each: others than in one process
        assert own["groups"] == pytest.approx(expected["groups"], rel=0.25)
        assert own["groups"][-1] == expected["groups"][-1]


SAID = {
    "data of a wrong shape": "mat1 and mat2 shapes",
    "not finite": "the loss is not finite for",
    "out of memory": "out of memory",
    "raised in a pass": "KeyError: 'x'",
    "unreadable": "the disk is gone",
    "other options": "`level` is 0.95 on rank 0 and 0.9 on rank 1: give all ranks the same options",
    "other parameters": "parameters of rank 1 are not those of rank 0, the first of them 'blocks.1",
    "other calls": "the ranks have taken different ways",
}


def test_a_rank_that_fails_ends_all_with_its_error(tmp_path: Path) -> None:
    first, second = results_of(2, "failures", tmp_path)
    expected = profiled(model_of("mlp"), losses, samples_of("mlp"))["trace_cov"][0]
    assert len(first) == 2 * len(SAID)
    for name, (text, after) in first.items():
        said, (other, after_other) = SAID[name.partition(": ")[2]], second[name]
        assert said in text, name
        assert said in other, name
        assert not text.startswith("late")
        assert not other.startswith("late")
        # the group and the model can be used as before
        assert after == after_other == pytest.approx(expected, rel=1e-9)
    told = {name.partition(": ")[2]: text.partition(":") for name, (text, _) in first.items()}
    assert told["not finite"][0] == "LossError"  # of the same kind on all ranks
    assert told["raised in a pass"][0] == "RanksError"  # where it is one of ours
    assert told["raised in a pass"][2].startswith(" on rank 1: KeyError")
