"""Signs of a report in ASCII."""

from __future__ import annotations

import io
import sys

import pytest
from rich.text import Text

from gradnoise.show.plain import can_show, in_ascii
from gradnoise.show.table import listed, plain_table, render


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("already plain: B_noise = 3", "already plain: B_noise = 3"),
        ("tr(HΣ)/GᵀHG", "tr(H Sigma)/G'HG"),
        ("trΣ/|G|²", "tr(Sigma)/|G|^2"),
        ("½ε²·tr(HΣ)/B", "1/2 eps^2*tr(H Sigma)/B"),
        ("P^-½HP^-½", "P^(-1/2) HP^(-1/2) "),
        ("loss³/parameter⁴", "loss^3/parameter^4"),
        ("≥ 3 to ∞, ±0.1%", ">= 3 to inf, +-0.1%"),
        ("…h.11.dense – ─", "...h.11.dense - -"),
        ("Müller’s naïve Réseau", "Muller's naive Reseau"),
        ("层 of 2", "? of 2"),
    ],
)
def test_signs_become_words(text: str, plain: str) -> None:
    assert in_ascii(text) == plain


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [
        ("utf-8", True), (None, True), ("ascii", False), ("latin-1", False), ("cp1252", False),
        ("no such encoding", False),
    ],
)  # fmt: skip
def test_an_encoding_has_the_signs_or_not(encoding: str | None, shown: bool) -> None:
    assert can_show(encoding) is shown


def test_columns_stand_below_one_another_in_ascii_too(monkeypatch: pytest.MonkeyPatch) -> None:
    table = plain_table("λ of the model", "ε")
    table.add_row("sharpness λ", "0.1")
    table.add_row("trΣ", "∞")
    with io.TextIOWrapper(io.BytesIO(), encoding="latin-1") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        text = render([Text("Σ"), table, *listed("½", ("ε is small.",))])
    title, heading, rule, first, second, half, sentence = text.split("\n")
    assert (title, half, sentence) == ("Sigma", "1/2", "- eps is small.")
    assert heading.index("eps") == first.index("0.1") == second.index("inf")
    assert set(rule) == {"-"}
