"""Words are broken, and put where there is room."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes

from gradnoise.show.figure import new_panels
from gradnoise.show.words import fit, put

MIDDLE, LEFT = (0.5, 0.5), (0.2, 0.5)
LOOK: dict[str, Any] = {"ha": "center", "va": "center"}


def plane() -> Axes:
    (axes,) = new_panels(1, 5, 4)
    axes.set(xlim=(0, 10), ylim=(0, 1))
    return axes


def test_words_are_put_at_the_first_spot_and_fixed_to_the_data() -> None:
    axes = plane()
    text = put(axes, "words", [MIDDLE, LEFT], LOOK)
    assert text is not None
    assert text.get_position() == (5, 0.5)
    before = text.get_window_extent()
    axes.set_xlim(0, 20)
    assert text.get_window_extent().x0 < before.x0


def test_no_words_line_or_mark_is_covered() -> None:
    for cover in (
        lambda axes: axes.text(5, 0.5, "others"),
        lambda axes: axes.plot([0, 10], [0.5, 0.5]) and axes.set_ylim(0, 1),
        lambda axes: axes.plot([5.3], [0.52], "o"),
    ):
        axes = plane()
        cover(axes)
        axes.set(xlim=(0, 10), ylim=(0, 1))
        text = put(axes, "words", [MIDDLE, (0.2, 0.8)], LOOK)
        assert text is not None
        assert text.get_position() == (2, 0.8)


def test_faint_lines_may_run_through_words() -> None:
    axes = plane()
    axes.plot([0, 10], [0.5, 0.5], zorder=1)
    axes.set(xlim=(0, 10), ylim=(0, 1))
    text = put(axes, "words", [MIDDLE], LOOK)
    assert text is not None
    assert text.get_position() == (5, 0.5)


def test_without_room_there_are_no_words() -> None:
    axes = plane()
    assert put(axes, "words", [(0.01, 0.5), (0.5, 1.0)], LOOK) is None
    assert put(axes, "words", [], LOOK) is None
    assert not axes.texts


def test_a_text_is_broken_only_where_it_is_too_long() -> None:
    axes = plane()
    text = axes.text(5, 0.5, "a few words of some length that are all short")
    whole = text.get_window_extent().width
    assert not fit(text, 2 * whole)
    assert "\n" not in text.get_text()
    assert fit(text, whole / 2)
    assert text.get_window_extent().width <= whole / 2
    assert text.get_text().count("\n") in (1, 2)
    assert not fit(axes.text(0, 0, ""), 1)


def test_the_room_of_an_upright_text_is_its_height() -> None:
    axes = plane()
    axes.set_ylabel("a few words of some length that are all short")
    whole = axes.yaxis.label.get_window_extent().height
    assert fit(axes.yaxis.label, whole / 2)
    assert axes.yaxis.label.get_window_extent().height <= whole / 2
