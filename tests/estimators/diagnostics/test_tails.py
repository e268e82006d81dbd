"""Tail indices: known laws, the negative controls, and what the comparison says."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import gradnoise as gn

COUNT = 100_000


def draw(law: str, count: int = COUNT, seed: int = 0) -> np.ndarray:
    source = np.random.default_rng(seed)
    normal = source.standard_normal(count)
    return {
        "gauss": lambda: normal,
        "cauchy": lambda: source.standard_cauchy(count),
        "t3": lambda: source.standard_t(3, count),
        "mixture": lambda: normal * np.exp(1.6 * source.standard_normal(count)),
    }[law]()


@pytest.mark.parametrize(("law", "index"), [("gauss", 2.0), ("cauchy", 1.0)])
def test_stable_laws_read_their_index(law: str, index: float) -> None:
    found = gn.stable_index(draw(law))
    assert found.low < index < found.high
    assert float(found) == pytest.approx(index, abs=0.15)


@pytest.mark.parametrize(("law", "reads"), [("t3", 1.74), ("mixture", 1.09)])
def test_finite_variance_reads_below_two_all_the_same(law: str, reads: float) -> None:
    """The negative controls: both have a finite variance, so their stable index is 2."""
    found = np.mean([float(gn.stable_index(draw(law, seed=seed))) for seed in range(8)])
    assert found == pytest.approx(reads, abs=0.06)


def test_the_stable_index_is_the_literal_quotient() -> None:
    x = draw("cauchy", 900)
    sums, block = x.reshape(30, 30).sum(1), 30
    literal = math.log(block) / (np.log(abs(sums)).mean() - np.log(abs(x)).mean())
    assert float(gn.stable_index(x)) == pytest.approx(literal, rel=1e-12)
    vectors = x.reshape(225, 4)
    sums = vectors.reshape(15, 15, 4).sum(1)
    norms = np.linalg.norm(vectors, axis=1), np.linalg.norm(sums, axis=1)
    literal = math.log(15) / (np.log(norms[1]).mean() - np.log(norms[0]).mean())
    assert float(gn.stable_index(vectors)) == pytest.approx(literal, rel=1e-12)


def test_zeros_are_left_out_and_sums_that_cancel_do_no_harm() -> None:
    x = draw("cauchy", 900)
    padded = np.concatenate([np.zeros(50), x])
    assert float(gn.stable_index(padded)) == pytest.approx(float(gn.stable_index(x)))
    assert not gn.stable_index([1.0, -1.0, 1.0, -1.0], block=2).is_resolved


def test_the_interval_of_the_stable_index_holds() -> None:
    found = [gn.stable_index(draw("cauchy", 2500, seed)) for seed in range(300)]
    assert 0.91 < np.mean([e.low <= 1 <= e.high for e in found]) < 0.99  # else 3 sets of 1000


def gradients(law: str, count: int = 64, size: int = 500) -> torch.Tensor:
    return torch.from_numpy(draw(law, count * size)).reshape(count, size) + 3.0


def test_scales_of_coordinates_lower_the_pooled_index_and_the_control_alike() -> None:
    scales = torch.exp(1.6 * torch.from_numpy(draw("gauss", 500, seed=1)))
    found = gn.tail_index(gradients("gauss") * scales)
    assert float(found.pooled) < 1.6
    assert not found.below_gaussian
    assert found.vectors.low < 2 < found.vectors.high
    assert "no sign of heavy tails" in str(found)


@pytest.mark.parametrize("law", ["cauchy", "t3"])
def test_heavier_tails_read_below_the_control_and_the_verdict_stays_careful(law: str) -> None:
    found = gn.tail_index(gradients(law, 200, 800))
    assert found.below_gaussian
    assert "neither alone makes the variance infinite" in str(found)
    assert found.pooled.status is gn.Status.NO_INTERVAL
    assert found.gaussian.level == pytest.approx(0.95)


def test_gaussian_noise_is_rarely_called_heavy() -> None:
    source = torch.Generator().manual_seed(0)
    runs = [
        gn.tail_index(torch.randn(32, 50, generator=source), seed=seed).below_gaussian
        for seed in range(120)
    ]
    assert sum(runs) <= 9  # nominally one in forty


def test_whole_vectors_read_two_after_centring() -> None:
    source = torch.Generator().manual_seed(1)
    reads = [
        1 / float(gn.tail_index(torch.randn(16, 40, generator=source), controls=2).vectors)
        for _ in range(400)
    ]
    z = (np.mean(reads) - 0.5) / (np.std(reads) / math.sqrt(400))
    assert abs(z) < 3.5


def test_dicts_and_seeds() -> None:
    g = gradients("t3", 32, 60)
    whole, parts = gn.tail_index(g), gn.tail_index({"a": g[:, :20], "b": g[:, 20:].numpy()})
    assert whole == parts
    assert gn.tail_index(g, seed=1).gaussian != whole.gaussian


def test_of_very_many_entries_some_coordinates_are_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gradnoise.estimators.diagnostics.tails.ENTRIES", 64 * 100)
    found = gn.tail_index(gradients("gauss"))
    assert found.pooled.samples == 80  # blocks of √6400
    assert not found.below_gaussian


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: gn.stable_index([1.0, 2.0, 3.0]), "needs twice as many"),
        (lambda: gn.stable_index(np.ones(10), block=6), "needs twice as many"),
        (lambda: gn.stable_index(np.ones(10), block=1), "`block` must be a whole number from 2"),
        (lambda: gn.stable_index([1.0, math.nan]), "finite"),
        (lambda: gn.stable_index(1.0), "needs twice as many"),
        (lambda: gn.tail_index(np.ones((8, 3))), "all equal"),
        (lambda: gn.tail_index(np.eye(7)), "at least 8 samples"),
        (lambda: gn.tail_index(np.eye(9), controls=1), "`controls` must be a whole number"),
    ],
)
def test_what_has_no_tail_is_refused(call, message: str) -> None:
    with pytest.raises(gn.ArgumentError, match=message):
        call()
