"""The work of a profile, before it runs."""

from __future__ import annotations

from gradnoise.profiles.expected import expected_work


def test_more_samples_cost_fewer_passes_each() -> None:
    works = [expected_work(n, whole=True, divisible=True).passes(n) for n in (512, 2048, 8192)]
    assert works == sorted(works, reverse=True)


def test_samples_that_cannot_be_taken_apart_cost_more() -> None:
    apart, together = (
        expected_work(2000, whole=True, divisible=own).passes(2000) for own in (True, False)
    )
    assert together > 2 * apart


def test_accuracy_is_paid_for() -> None:
    coarse, fine = (
        expected_work(4000, whole=True, divisible=True, accuracy=a).passes(4000)
        for a in (0.15, 0.05)
    )
    assert fine > coarse
