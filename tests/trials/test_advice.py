"""Which batch size and rate follow from trials whose losses are known."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

import gradnoise as gn
from gradnoise.trials.advice import Choice, choices, chosen, write_reasons
from tests.starts import ended, made_branches


def test_there_is_a_choice_for_every_batch_size_with_a_stable_rate() -> None:
    records = [*made_branches().records, *ended(256, 0.4, (math.inf, 0.1))]
    found = choices(records)
    assert [choice.batch_size for choice in found] == [4, 16, 64]
    assert found[0] == Choice(4, 0.1, 0.2, 0.4, pytest.approx(0.19), at_end=True)
    assert choices(records[-2:]) == []


@pytest.mark.parametrize(
    ("iterate", "averaged", "unstable", "lr"),
    [(0.1, 0.4, math.inf, 0.2), (0.1, 0.1, 0.4, 0.1), (0.2, 0.2, 0.4, 0.2), (0.3, 0.3, 0.4, 0.2)],
)
def test_the_rate_is_the_middle_of_the_best_below_what_is_unstable(
    iterate: float, averaged: float, unstable: float, lr: float
) -> None:
    assert Choice(4, iterate, averaged, unstable, 1.0, False).lr == pytest.approx(lr)


@pytest.mark.parametrize(
    ("averaged", "at_end", "agrees"), [(0.4, False, True), (0.41, False, False), (0.1, True, False)]
)
def test_the_two_best_rates_agree_within_four_and_inside(
    averaged: float, at_end: bool, agrees: bool
) -> None:
    assert Choice(4, 0.1, averaged, math.inf, 1.0, at_end).agrees == agrees


@pytest.mark.parametrize(("extra", "size"), [(0.1, 4), (0.99, 4), (1.01, 16), (10.0, 64)])
def test_the_largest_batch_size_that_is_cheap_enough_is_chosen(extra: float, size: int) -> None:
    """16 needs twice the samples of 4."""
    found = made_branches()
    assert chosen(choices(found.records), found, extra).batch_size == size


def test_the_reasons_name_what_was_tried_and_what_it_costs() -> None:
    found = made_branches()
    (choice,) = choices(ended(16, 0.2, (0.34, 0.36), (0.30, 0.32)))
    said = " ".join(write_reasons(choice, found, ended(16, 0.2, (0.34, 0.36))))
    assert "Batch size 16, learning rate 0.200: tried 4 steps from here on 2 seeds: holds" in said
    assert "from 1.00 to 0.350" in said
    assert "no rate that was tried was unstable" in said
    assert "Critical batch size " in said
    assert "2 times at 16" in said
    unstable = replace(choice, unstable=0.8)
    assert "0.800 was not stable" in " ".join(write_reasons(unstable, found, found.records[:1]))


def test_an_advice_is_printed_with_its_confidence() -> None:
    found = made_branches()
    advice = gn.Advice(
        16, 0.2, ("One.", "Two."), "rough", (0.2, 0.2), 4, 2, found.critical_batch_size, 9, found
    )
    assert str(advice) == "What to do (confidence: rough)\n- One.\n- Two."
