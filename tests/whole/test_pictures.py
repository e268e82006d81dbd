"""All pictures: what they are given they give back, and nothing in them covers anything else."""

from __future__ import annotations

import inspect
import itertools
import re
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib import colors
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

import gradnoise as gn
from tests.pictures_cases import pictures
from tests.run_files import DIGITS

DOCS = Path(__file__).parents[2] / "docs"
SMALL = (3.3, 4.2)  # inches: a column of a paper
FUNCTIONS = [getattr(gn.pictures, name) for name in gn.pictures.__all__]
LIGHTER = 15  # in L*, 0 black to 100 white: seen in print without colours


def empty(size: tuple[float, float] = SMALL, count: int = 1, layout: str | None = "constrained"):
    figure = Figure(figsize=size, layout=layout)
    FigureCanvasAgg(figure)
    return figure, list(figure.subplots(1, count, squeeze=False)[0])


@pytest.fixture(scope="module", params=["own figure", "a column wide"])
def drawn(request: pytest.FixtureRequest) -> dict[str, Axes]:
    """Every picture in every case, as it would be saved."""
    found = {}
    for name, (draw, argument, options) in pictures().items():
        axes = None if request.param == "own figure" else empty()[1][0]
        found[name] = draw(argument, axes=axes, **options)
        found[name].figure.draw_without_rendering()
    return found


def texts(axes: Axes) -> Iterator[Any]:
    """All words that are seen."""
    ticks = [*axes.get_xticklabels(), *axes.get_yticklabels()]
    inside = [tick for tick in ticks if seen(axes, tick)]
    legend = axes.get_legend()
    own = [axes.title, axes.xaxis.label, axes.yaxis.label, *axes.texts, *inside]
    own += legend.get_texts() if legend else []
    return (text for text in own if text.get_visible() and text.get_text())


def seen(axes: Axes, tick: Any) -> bool:
    x, y = tick.get_position()
    low, high = axes.get_xlim() if tick in axes.get_xticklabels() else axes.get_ylim()
    value = x if tick in axes.get_xticklabels() else y
    return min(low, high) <= value <= max(low, high)


def smaller(box: Bbox) -> Bbox:
    """Without the pixel around it."""
    return Bbox.from_extents(box.x0 + 1, box.y0 + 1, box.x1 - 1, box.y1 - 1)


def test_words_do_not_overlap(drawn: dict[str, Axes]) -> None:
    for name, axes in drawn.items():
        boxes = {text: smaller(text.get_window_extent()) for text in texts(axes)}
        for (one, here), (other, there) in itertools.combinations(boxes.items(), 2):
            assert not here.overlaps(there), (name, one.get_text(), other.get_text())


def test_words_are_within_the_figure(drawn: dict[str, Axes]) -> None:
    for name, axes in drawn.items():
        edge = axes.figure.bbox
        for text in texts(axes):
            box = smaller(text.get_window_extent())
            assert edge.x0 <= box.x0 <= box.x1 <= edge.x1, (name, text.get_text())
            assert edge.y0 <= box.y0 <= box.y1 <= edge.y1, (name, text.get_text())


def test_the_legend_covers_no_data(drawn: dict[str, Axes]) -> None:
    for name, axes in drawn.items():
        if axes.get_legend() is None:
            continue
        box = axes.get_legend().get_window_extent()
        assert not box.overlaps(axes.bbox), name
        for line in axes.lines:
            points = line.get_transform().transform(line.get_xydata())
            inside = points[[axes.bbox.contains(*point) for point in points]]
            assert not any(box.contains(*point) for point in inside), (name, line.get_label())


def test_words_in_the_plane_cover_no_line_and_no_mark(drawn: dict[str, Axes]) -> None:
    for name, axes in drawn.items():
        for text, line in itertools.product(axes.texts, axes.lines):
            if line.zorder <= 1:  # faint, behind everything
                continue
            path = line.get_path().transformed(line.get_transform())
            box = text.get_window_extent()
            covered = path.intersects_bbox(box, filled=False)
            assert not covered, (name, text.get_text(), line.get_label())


def test_there_is_room_for_the_data(drawn: dict[str, Axes]) -> None:
    for name, axes in drawn.items():
        assert axes.bbox.width > 0.3 * axes.figure.bbox.width, name
        assert axes.bbox.height > 0.15 * axes.figure.bbox.height, name


def lightness(color: Any) -> float:
    """L* of CIELAB."""
    y = linear(color) @ [0.2126, 0.7152, 0.0722]
    return float(116 * y ** (1 / 3) - 16) if y > 0.008856 else float(903.3 * y)


def linear(color: Any) -> np.ndarray:
    part = np.array(colors.to_rgb(color))
    return np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)


def look(line: Any) -> tuple[Any, ...]:
    """What is seen of a line or its marks without colours."""
    hollow = line.get_fillstyle(), line.get_markerfacecolor() == "none"
    dashes = str(line._unscaled_dash_pattern) if line.get_linestyle() != "None" else ""
    return dashes, line.get_marker(), *hollow, line.get_linewidth() > 5


def test_lines_can_be_told_apart_in_grey(drawn: dict[str, Axes]) -> None:
    for name, axes in drawn.items():
        named = [line for line in axes.lines if not line.get_label().startswith("_")]
        for one, other in itertools.combinations(named, 2):
            apart = abs(lightness(one.get_color()) - lightness(other.get_color()))
            assert look(one) != look(other) or apart > LIGHTER, (name, one, other)


def few() -> dict[str, tuple[Any, Any, dict[str, Any]]]:
    """One case of each function."""
    return {draw.__name__: (draw, *rest) for draw, *rest in pictures().values()}


def test_every_function_is_among_the_cases() -> None:
    assert sorted(few()) == sorted(gn.pictures.__all__)


@pytest.mark.parametrize("layout", [None, "constrained"])
def test_axes_that_are_given_are_given_back_and_others_stay(layout: str | None) -> None:
    for name, (draw, argument, options) in few().items():
        figure, (left, right) = empty((10, 4), 2, layout)
        right.plot([0, 1], [0, 1])
        right.set(title="mine", xlim=(0, 2))
        before = right.get_xlim(), right.get_ylim(), right.get_position().bounds
        size, engine, at = figure.get_size_inches().tolist(), figure.get_layout_engine(), None
        if layout is None:
            at = left.get_position().bounds
        assert draw(argument, axes=left, **options) is left, name
        assert figure.axes == [left, right]
        assert figure.get_size_inches().tolist() == size
        assert figure.get_layout_engine() is engine
        assert (right.get_xlim(), right.get_ylim()) == before[:2]
        assert right.get_title() == "mine"
        assert len(right.get_children()) == len(empty(count=2)[1][1].get_children()) + 1
        if layout is None:
            assert (left.get_position().bounds, right.get_position().bounds) == (at, before[2])
        assert not figure.legends
        assert not figure.texts


def test_without_axes_there_is_a_figure_that_pyplot_does_not_know() -> None:
    from matplotlib import pyplot

    before = pyplot.get_fignums()  # of other tests
    for draw, argument, options in few().values():
        axes = draw(argument, **options)
        assert axes.figure.axes == [axes]
    assert pyplot.get_fignums() == before


@pytest.mark.parametrize("draw", FUNCTIONS, ids=lambda draw: draw.__name__)
def test_each_takes_and_returns_axes_and_says_what_it_shows(draw: Any) -> None:
    axes = inspect.signature(draw).parameters["axes"]
    assert (axes.kind, axes.default) == (inspect.Parameter.KEYWORD_ONLY, None)
    hints = typing.get_type_hints(draw, {**draw.__globals__, "Axes": Axes})
    assert (hints["axes"], hints["return"]) == (Axes | None, Axes)
    for part in ("Args:", "Returns:", "Raises:"):
        assert part in draw.__doc__


def test_on_a_dark_background_words_and_lines_are_light() -> None:
    with matplotlib.rc_context({**matplotlib.style.library["dark_background"]}):
        for name, (draw, argument, options) in few().items():
            axes = draw(argument, **options)
            ground = lightness(axes.get_facecolor())
            assert ground < 5
            for text in texts(axes):
                assert lightness(text.get_color()) > 40, (name, text.get_text())
            for line in axes.lines:
                assert lightness(line.get_color()) > 40, (name, line.get_label())


def test_sizes_of_words_follow_the_style() -> None:
    draw, argument, options = few()["regime_map"]
    usual = [text.get_fontsize() for text in texts(draw(argument, **options))]
    with matplotlib.rc_context({"font.size": 14}):
        larger = {text.get_fontsize() for text in texts(draw(argument, **options))}
    assert min(larger) == pytest.approx(1.4 * min(usual))
    assert max(larger) == pytest.approx(1.4 * max(usual))


def test_the_page_shows_every_picture_with_its_code() -> None:
    page = (DOCS / "pictures.md").read_text(encoding="utf-8")
    code = "\n".join(re.findall(r"```python\n(.*?)```", page, re.S))
    compile(code, "pictures.md", "exec")
    for name in gn.pictures.__all__:
        assert f"gn.pictures.{name}(" in code, name
        assert f"`{name}`" in page, name
    shown = re.findall(r"\]\(images/(\w+\.png)\)", page)
    assert shown == re.findall(r'savefig\("(\w+\.png)"', code)
    for name in shown:
        assert (DOCS / "images" / name).stat().st_size < 120_000, name


def test_methods_return_the_figure_or_the_axes_they_are_given(tmp_path: Path) -> None:
    for name in ("regime_map", "spectral_density", "sweep", "branches"):
        draw, argument, _ = few()[name]
        figure = argument.plot(tmp_path / f"{name}.png")
        assert isinstance(figure, Figure)
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        _, (axes,) = empty((8, 6))
        assert argument.plot(tmp_path / f"{name}.pdf", axes=axes) is axes
        assert (tmp_path / f"{name}.pdf").read_bytes().startswith(b"%PDF")
        assert axes.get_title() == draw(argument, axes=empty((8, 6))[1][0]).get_title()
        with pytest.raises(gn.ArgumentError, match="a picture ends in"):
            argument.plot(tmp_path / "picture.doc")


def test_a_run_is_drawn_from_its_file() -> None:
    read = gn.pictures.noise_scale(pictures()["noise scale, digits"][1])
    assert gn.pictures.noise_scale(DIGITS).get_title() == read.get_title()
    assert gn.pictures.loss(str(DIGITS), title="a run").get_title() == "a run"
