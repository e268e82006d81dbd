"""The charts of the page as Vega-Lite specifications; colours are those of the page's style."""

from __future__ import annotations

import math
from typing import Any

import lazy_loader
import numpy as np

from ..learning_rate.landscape import Landscape
from ..statistics.estimate import short
from .contents import is_drawn
from .regime import batch_grid, rate_ends
from .results import Results, other_optimizer
from .spectra import Spectrum

alt: Any = lazy_loader.load("altair")  # only where a page is made

INK, FAINT = "var(--ink)", "var(--faint)"
CURVATURE, NOISE, SQUARE = "var(--curvature)", "var(--noise)", "var(--square)"
POINTS = 60  # of a curve
Spec = dict[str, Any]
Values = list[dict[str, Any]]


def charts(profile: Results) -> dict[str, Spec]:
    """The charts that can be drawn, by name: "regime", "trade_off", and "spectrum H"."""
    found = {f"spectrum {name}": spectrum(name, seen) for name, seen in profile.spectra.items()}
    if not is_drawn(profile):
        return found
    found["regime"] = regime_map(profile)
    if profile.noise_scale.is_resolved and float(profile.noise_scale) > 0:
        found["trade_off"] = trade_off(profile)
    return found


CURVES = {  # colour and dashes
    "full-batch limit": (CURVATURE, [1, 0]),
    "mean-square limit": (SQUARE, [7, 3]),
    "noise-scale rule": (NOISE, [2, 2]),
}


def regime_map(profile: Results) -> Spec:
    """Limits of the learning rate over batch size, both noise scales, the setting in use."""
    landscape = profile.landscape(profile.setting.momentum)
    batches, ends = batch_grid(profile, POINTS), rate_ends(profile, landscape)
    rows = _limit_rows(landscape, batches)
    other = other_optimizer(profile)
    whose = f"of plain SGD, not {other}" if other else f"({profile.setting.who})"
    x = alt.X("B:Q", title="batch size B (samples)").scale(
        type="log", base=2, domain=[batches[0], batches[-1]], nice=False
    )
    y = alt.Y("lr:Q", title=f"learning rate ε {whose}").scale(
        type="log", domain=ends, nice=False, clamp=True
    )
    stable = landscape.stable_lr
    layers = [
        _across(stable.low, min(stable.high, ends[1])),
        _across(float(stable), ends[1]),
        *_rule_band(landscape, batches, ends),
        _lines(rows, x, y),
        *_scales(profile, batches),
        *_regions(landscape, ends[1]),
        *_points(profile),
    ]
    return _finished(alt.layer(*layers), 340)


def _across(low: float, high: float) -> Any:
    """A strip between two rates: unstable, or inside of the interval of the limit."""
    strip = _of([{"low": low, "high": high}]).mark_rect(color=CURVATURE, opacity=0.07)
    return strip.encode(y="low:Q", y2="high:Q")


def _limit_rows(landscape: Landscape, batches: np.ndarray) -> Values:
    """Points of the curves that have values."""
    rows = []
    for batch in map(float, batches):
        rates = {
            "full-batch limit": landscape.stable_lr,
            "mean-square limit": landscape.mean_square_lr(batch),
            "noise-scale rule": landscape.max_lr(batch),
        }
        rows += [
            {"curve": name, "B": batch, "lr": float(rate)}
            for name, rate in rates.items()
            if 0 < float(rate) < math.inf
        ]
    return rows


def _lines(rows: Values, x: Any, y: Any) -> Any:
    """The curves, with a legend of those that there are."""
    names = [name for name in CURVES if any(row["curve"] == name for row in rows)]
    colours, dashes = zip(*(CURVES[name] for name in names), strict=True)
    return (
        _of(rows)
        .mark_line(strokeWidth=2.5)
        .encode(
            x=x,
            y=y,
            color=alt.Color("curve:N", title=None).scale(domain=names, range=list(colours)),
            strokeDash=alt.StrokeDash("curve:N", title=None).scale(
                domain=names, range=list(dashes)
            ),
            tooltip=[
                "curve:N",
                alt.Tooltip("B:Q", format=".3~g"),
                alt.Tooltip("lr:Q", title="learning rate", format=".3~g"),
            ],
        )
    )


def _rule_band(landscape: Landscape, batches: np.ndarray, ends: tuple[float, float]) -> list[Any]:
    """The interval of the noise-scale rule; its bounds where it has no value."""
    rows = []
    for batch in map(float, batches):
        rate = landscape.max_lr(batch)
        low, high = max(rate.low, ends[0]), min(rate.high, ends[1])
        if low < high and (rate.low > 0 or rate.high < math.inf):
            rows.append({"B": batch, "low": low, "high": high})
    band = _of(rows).mark_area(color=NOISE, opacity=0.18, aria=False)
    return [band.encode(x="B:Q", y="low:Q", y2="high:Q")] if rows else []


def _regions(landscape: Landscape, highest: float) -> list[Any]:
    """The names of the regions that the limits separate, at the left edge."""
    stable, square = float(landscape.stable_lr), float(landscape.mean_square_lr(1))
    rule = float(landscape.max_lr(1))
    places = [(math.sqrt(stable * highest), "unstable at this point", CURVATURE)]
    if rule * 8 < square:
        places.append((math.sqrt(rule * square), "noise takes a part of each step", NOISE))
    return [
        _words(_of([{"lr": rate, "name": name}]), colour, dx=8, align="left").encode(
            x=alt.value(0), y="lr:Q"
        )
        for rate, name, colour in places
    ]


def _scales(profile: Results, batches: np.ndarray) -> list[Any]:
    """Both noise scales as vertical lines, their intervals as bands, their names above."""
    drawn: list[Any] = []
    scales = {"B_simple": profile.simple_noise_scale, "B_noise": profile.noise_scale}
    shown = {name: scale for name, scale in scales.items() if scale.low > 0 or scale.is_resolved}
    apart = sorted(float(scale) for scale in shown.values() if scale.is_resolved)
    for name, scale in shown.items():
        low, high = max(scale.low, batches[0]), min(scale.high, batches[-1])
        if low < high:
            area = _of([{"from": low, "to": high}])
            drawn.append(area.mark_rect(color=INK, opacity=0.08).encode(x="from:Q", x2="to:Q"))
        if not (scale.is_resolved and batches[0] < float(scale) < batches[-1]):
            continue
        chart = _of([{"B": float(scale), "name": f"{name} {short(float(scale))}"}])
        dash = [6, 3, 1, 3] if name == "B_simple" else [1, 0]
        drawn.append(chart.mark_rule(color=INK, strokeDash=dash).encode(x="B:Q"))
        left = float(scale) == apart[0] and len(apart) > 1
        side = {"align": "right", "dx": -5} if left else {"align": "left", "dx": 5}
        label = _words(chart, INK, dy=9, baseline="top", **side)
        drawn.append(label.encode(x="B:Q", y=alt.value(0)))
    return drawn


def _points(profile: Results) -> list[Any]:
    """The setting in use and the advised one."""
    setting, advice = profile.setting, profile.recommend()
    now, other = (setting.batch_size, setting.lr), (advice.batch_size, advice.lr)
    named = "to try" if profile.advised is None else "tried"
    places = [
        ("now", *now, INK, "circle", 130),
        (named, *(other if other != now else (None, None)), NOISE, "diamond", 190),
    ]
    drawn = []
    for name, batch, rate, colour, shape, size in places:
        if not (batch and rate):
            continue
        said = f"{name}: learning rate {short(rate)} at batch size {batch:g}"
        place = _of([{"B": batch, "lr": rate, "name": name, "setting": said}])
        place = place.encode(x="B:Q", y="lr:Q", tooltip=["setting:N"])
        mark = place.mark_point(
            filled=True, color=colour, shape=shape, size=size, stroke="var(--paper)", opacity=1
        )
        drawn += [mark, _words(place, INK, dx=-11, dy=-9, align="right")]
    return drawn


def trade_off(profile: Results) -> Spec:
    """Steps against samples of a run: what a batch size costs."""
    scale, batches = float(profile.noise_scale), batch_grid(profile, POINTS)
    curve = [_costs(scale, float(batch)) for batch in batches]
    own, special = profile.setting.batch_size, [_costs(scale, scale, "B_noise")]
    if own:
        special.append(_costs(scale, own, f"now: {own:g}"))
    marked = [
        _costs(scale, size, f"{size:g}")
        for size in _ticks(batches)
        if all(abs(math.log2(size / other["B"])) > 0.8 for other in special)
    ]
    x = alt.X("steps:Q", title="steps, over the fewest (1 + B_noise/B)").scale(
        type="log", nice=False
    )
    y = alt.Y("samples:Q", title="samples, over the fewest (1 + B/B_noise)").scale(
        type="log", nice=False
    )
    told = [alt.Tooltip(f"{name}:Q", format=".3~g") for name in ("B", "steps", "samples")]
    line = _of(curve).mark_line(color=NOISE, strokeWidth=2.5)
    ticks = _of(marked).encode(x=x, y=y, tooltip=told)
    places = _of(special).encode(x=x, y=y, tooltip=told)
    return _finished(
        alt.layer(
            line.encode(x=x, y=y, order="B:Q"),
            ticks.mark_point(filled=True, color=NOISE, size=45, opacity=1),
            _words(ticks, INK, dx=7, dy=-7, align="left"),
            places.mark_point(filled=True, color=INK, size=110, opacity=1),
            _words(places, INK, dx=9, dy=-10, align="left"),
        ),
        300,
    )


def spectrum(name: str, seen: Spectrum) -> Spec:
    """The density of the eigenvalues of a matrix, on a logarithmic axis."""
    floor = max(seen.density) * 1e-7
    rows = [
        {"x": x, "density": max(y, floor), "low": max(low, floor), "high": max(high, floor)}
        for x, y, low, high in zip(seen.grid, seen.density, seen.low, seen.high, strict=True)
    ]
    base = _of(rows).encode(x=alt.X("x:Q", title=f"eigenvalue of {name}"))
    band = base.mark_area(color=NOISE, opacity=0.2).encode(
        y=alt.Y("low:Q", title="share of the eigenvalues per unit").scale(type="log", nice=False),
        y2="high:Q",
    )
    line = base.mark_line(color=NOISE, strokeWidth=1.8).encode(
        y=alt.Y("density:Q"),
        tooltip=[alt.Tooltip("x:Q", title="eigenvalue", format=".3~g"), "density:Q"],
    )
    return _finished(alt.layer(band, line), 240)


def _costs(scale: float, batch: float, name: str = "") -> dict[str, Any]:
    return {"B": batch, "steps": 1 + scale / batch, "samples": 1 + batch / scale, "name": name}


def _ticks(batches: np.ndarray) -> list[float]:
    """Powers of four within the grid."""
    last = int(math.log2(batches[-1]))
    return [float(2**power) for power in range(0, last + 1, 2)]


def _of(rows: Values) -> Any:
    """A chart of these rows."""
    return alt.Chart(alt.Data(values=rows))


def _words(chart: Any, colour: str, **place: Any) -> Any:
    """The column "name" as text, with an edge that keeps it readable on lines."""
    edge = {"stroke": "var(--paper)", "strokeWidth": 3, "strokeJoin": "round"}
    return chart.mark_text(color=colour, **edge, **place).encode(text="name:N")


def _finished(chart: Any, height: int) -> Spec:
    """The chart as wide as its place, in the colours of the page."""
    axis = {
        "labelColor": INK, "titleColor": INK, "domainColor": FAINT, "tickColor": FAINT,
        "gridColor": FAINT, "gridOpacity": 0.15, "titleFontWeight": "normal", "labelFlush": True,
        "labelOverlap": True, "format": "~g", "tickCount": 8,
    }  # fmt: skip
    chart = chart.properties(width="container", height=height).configure(background="transparent")
    chart = chart.configure_axis(**axis).configure_view(stroke=None)
    chart = chart.configure_legend(
        orient="bottom",
        labelColor=INK,
        symbolStrokeWidth=2.5,
        columns=3,
        columnPadding=18,
        labelLimit=260,
    )  # fmt: skip
    spec: Spec = chart.to_dict()
    return spec
