"""The charts of the page as Vega-Lite specifications; colours are those of the page's style."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ...learning_rate.landscape import Landscape
from ...statistics.estimate import Estimate, short
from ..contents import is_drawn
from ..results import Results

INK, FAINT = "var(--ink)", "var(--faint)"
CURVATURE, NOISE, SQUARE = "var(--curvature)", "var(--noise)", "var(--square)"
POINTS = 60  # of a curve
Spec = dict[str, Any]
Values = list[dict[str, Any]]


def charts(profile: Results) -> dict[str, Spec]:
    """The charts that can be drawn, by name: "regime", "trade_off"."""
    if not is_drawn(profile):
        return {}
    found = {"regime": regime_map(profile)}
    if profile.noise_scale.is_resolved and float(profile.noise_scale) > 0:
        found["trade_off"] = trade_off(profile)
    return found


def regime_map(profile: Results) -> Spec:
    """Limits of the learning rate over batch size, both noise scales, the setting in use."""
    import altair as alt

    landscape = profile.landscape(profile.setting.momentum)
    batches = batch_grid(profile)
    curves = _limit_curves(profile, landscape, batches)
    lowest, highest = _rates(profile, landscape)
    x = alt.X("B:Q", title="batch size B (samples)").scale(
        type="log", base=2, domain=[batches[0], batches[-1]], nice=False
    )
    y = alt.Y("lr:Q", title=f"learning rate ε ({profile.setting.who})").scale(
        type="log", domain=[lowest, highest], nice=False, clamp=True
    )
    names = ["full-batch limit", "mean-square limit", "noise-scale rule"]
    colour = alt.Color("curve:N", title=None).scale(
        domain=names, range=[CURVATURE, SQUARE, NOISE]
    )
    dash = alt.StrokeDash("curve:N", title=None).scale(
        domain=names, range=[[1, 0], [7, 3], [2, 2]]
    )
    told = [alt.Tooltip("curve:N"), alt.Tooltip("B:Q", format=".3~g"),
            alt.Tooltip("lr:Q", title="learning rate", format=".3~g")]  # fmt: skip
    base = alt.Chart(alt.Data(values=curves)).encode(x=x)
    rule = base.transform_filter("datum.curve == 'noise-scale rule' && isValid(datum.low)")
    band = rule.mark_area(color=NOISE, opacity=0.18).encode(y="low:Q", y2="high:Q")
    line = base.mark_line(strokeWidth=2.5).encode(y=y, color=colour, strokeDash=dash, tooltip=told)
    unstable = (
        alt.Chart(alt.Data(values=[{"low": float(landscape.stable_lr), "high": highest}]))
        .mark_rect(color=CURVATURE, opacity=0.07)
        .encode(y="low:Q", y2="high:Q")
    )
    layers = [unstable, band, line, *_scales(profile, batches), *_points(profile)]
    return _finished(alt.layer(*layers), 340)


def _limit_curves(profile: Results, landscape: Landscape, batches: np.ndarray) -> Values:
    """Rows of the curves, with bands where they have a width."""
    rows: Values = []
    stable = landscape.stable_lr
    for batch in map(float, batches):
        rows.append(_on_curve("full-batch limit", batch, stable))
        rows.append(_on_curve("noise-scale rule", batch, landscape.max_lr(batch)))
        if batch <= profile.population:
            rows.append(_on_curve("mean-square limit", batch, landscape.mean_square_lr(batch)))
    return rows


def _on_curve(curve: str, batch: float, rate: Estimate) -> dict[str, Any]:
    ends = {"low": _finite(rate.low), "high": _finite(rate.high)}
    if None in ends.values():
        ends = {"low": None, "high": None}
    return {"curve": curve, "B": batch, "lr": _finite(float(rate)), **ends}


def _scales(profile: Results, batches: np.ndarray) -> list[Any]:
    """Both noise scales as vertical lines, their intervals as bands, their names above."""
    import altair as alt

    drawn: list[Any] = []
    scales = {"B_simple": profile.simple_noise_scale, "B_noise": profile.noise_scale}
    shown = {name: scale for name, scale in scales.items() if scale.low > 0 or scale.is_resolved}
    apart = sorted(float(scale) for scale in shown.values() if scale.is_resolved)
    for row, (name, scale) in enumerate(shown.items()):
        low, high = max(scale.low, batches[0]), min(scale.high, batches[-1])
        if low < high:
            area = alt.Chart(alt.Data(values=[{"from": low, "to": high}]))
            drawn.append(area.mark_rect(color=INK, opacity=0.08).encode(x="from:Q", x2="to:Q"))
        if not (scale.is_resolved and batches[0] < float(scale) < batches[-1]):
            continue
        chart = alt.Chart(alt.Data(values=[{"B": float(scale), "name": f"{name} {short(float(scale))}"}]))
        dash = [6, 3, 1, 3] if name == "B_simple" else [1, 0]
        drawn.append(chart.mark_rule(color=INK, strokeDash=dash).encode(x="B:Q"))
        left = float(scale) == apart[0] and len(apart) > 1
        label = chart.mark_text(
            color=INK, align="right" if left else "left", dx=-4 if left else 4, dy=9 + 13 * row * (not left), baseline="top"
        )
        drawn.append(label.encode(x="B:Q", y=alt.value(0), text="name:N"))
    return drawn


def _points(profile: Results) -> list[Any]:
    """The setting in use and the advised one."""
    import altair as alt

    setting, advice = profile.setting, profile.recommend()
    places = [
        ("now", setting.batch_size, setting.lr, INK, "circle", 130),
        ("to try", advice.batch_size, advice.lr, NOISE, "diamond", 190),
    ]
    drawn = []
    for name, batch, rate, colour, shape, size in places:
        if not (batch and rate):
            continue
        said = f"{name}: {short(rate)} at B = {batch:g}"
        chart = alt.Chart(alt.Data(values=[{"B": batch, "lr": rate, "setting": said}]))
        place = chart.encode(x="B:Q", y="lr:Q", tooltip=["setting:N"])
        mark = place.mark_point(
            filled=True, color=colour, shape=shape, size=size, stroke="var(--paper)", opacity=1
        )
        text = place.mark_text(color=INK, dx=11, dy=11, align="left").encode(text="setting:N")
        drawn += [mark, text]
    return drawn


def trade_off(profile: Results) -> Spec:
    """Steps against samples of a run: what a batch size costs."""
    import altair as alt

    scale, batches = float(profile.noise_scale), batch_grid(profile)
    curve = [_costs(scale, float(batch)) for batch in batches]
    marked = [_costs(scale, batch, f"{batch:g}") for batch in _ticks(batches)]
    own = profile.setting.batch_size
    if own:
        marked = [m for m in marked if not 0.6 < m["B"] / own < 1.7]
    x = alt.X("steps:Q", title="steps, over the fewest (1 + B_noise/B)").scale(type="log", nice=False)
    y = alt.Y("samples:Q", title="samples, over the fewest (1 + B/B_noise)").scale(
        type="log", nice=False
    )
    told = [alt.Tooltip(f"{name}:Q", format=".3~g") for name in ("B", "steps", "samples")]
    line = alt.Chart(alt.Data(values=curve)).mark_line(color=NOISE, strokeWidth=2.5)
    ticks = alt.Chart(alt.Data(values=marked)).encode(x=x, y=y, tooltip=told)
    layers = [
        line.encode(x=x, y=y, order="B:Q"),
        ticks.mark_point(filled=True, color=NOISE, size=45, opacity=1),
        ticks.mark_text(color=INK, dx=7, dy=-7, align="left").encode(text="name:N"),
    ]
    if own:
        here = alt.Chart(alt.Data(values=[_costs(scale, own, f"now: B = {own:g}")]))
        here = here.encode(x=x, y=y, tooltip=told)
        layers += [
            here.mark_point(filled=True, color=INK, size=130, opacity=1),
            here.mark_text(color=INK, dx=11, dy=-9, align="left").encode(text="name:N"),
        ]
    return _finished(alt.layer(*layers), 300)


def _costs(scale: float, batch: float, name: str = "") -> dict[str, Any]:
    return {"B": batch, "steps": 1 + scale / batch, "samples": 1 + batch / scale, "name": name}


def _ticks(batches: np.ndarray) -> list[float]:
    """Powers of four within the grid."""
    last = int(math.log2(batches[-1]))
    return [float(2**power) for power in range(0, last + 1, 2)]


def batch_grid(profile: Results) -> np.ndarray:
    """Batch sizes from 1 to well beyond the noise scales and the batch size in use."""
    scales = profile.noise_scale, profile.simple_noise_scale
    known = [float(e) if e.is_resolved else e.low for e in scales]
    known += [profile.setting.batch_size or 0.0, profile.recommend().batch_size or 0.0]
    top = max([64.0, *(8 * size for size in known if math.isfinite(size) and size < 2**40)])
    return np.geomspace(1, 2 ** math.ceil(math.log2(top)), POINTS)


def _rates(profile: Results, landscape: Landscape) -> tuple[float, float]:
    top = 4 * float(landscape.stable_lr)
    own = [rate for rate in (profile.setting.lr, profile.recommend().lr) if rate]
    rule = float(landscape.max_lr(1))
    bottom = rule if math.isfinite(rule) and rule > 0 else top / 1e3
    return min([bottom, top / 1e2, *own]) / 2, max([top, *(2 * rate for rate in own)])


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) and number > 0 else None


def _finished(chart: Any, height: int) -> Spec:
    """The chart as wide as its place, in the colours of the page."""
    axis = {
        "labelColor": INK, "titleColor": INK, "domainColor": FAINT, "tickColor": FAINT,
        "gridColor": FAINT, "gridOpacity": 0.15, "titleFontWeight": "normal", "labelFlush": True,
        "labelOverlap": True, "format": "~g", "tickCount": 8,
    }  # fmt: skip
    chart = chart.properties(width="container", height=height).configure(
        background="transparent"
    )
    chart = chart.configure_axis(**axis).configure_view(stroke=None)
    chart = chart.configure_legend(
        orient="bottom", labelColor=INK, symbolStrokeWidth=2.5, columns=3, labelLimit=260
    )
    spec: Spec = chart.to_dict()
    return spec
