"""The page: the contents of a report set in a template, with charts and the data inside."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from ..errors import ProfileFileError
from ..files.atomic import replace_file
from ..files.version import version
from ..moments.layer import Layer
from ..show.table import cells, integer
from ..statistics.estimate import Estimate, percent, short
from . import contents
from .charts import Spec, charts
from .layer_table import limiting_layer
from .results import Results, has_curvature, is_unsettled
from .spectra import Spectrum

NEEDS = "the page needs its libraries: pip install altair vl-convert-python jinja2"


def write_page(profile: Results, data: Mapping[str, Any], path: str | Path) -> None:
    """Write the page, the whole file or nothing.

    Args:
        profile: what it is about.
        data: the profile as it is saved, to be read again from the page.
        path: of the file.
    """
    text = render(profile, data)
    try:
        replace_file(path, lambda file: file.write(text.encode()))
    except OSError as error:
        raise ProfileFileError(f"cannot write {path}: {error.strerror}") from error


def render(profile: Results, data: Mapping[str, Any]) -> str:
    """The page as text."""
    try:
        import altair  # noqa: F401  (the charts need it)
        import vl_convert  # noqa: F401
        from jinja2 import Environment
        from markupsafe import Markup
    except ImportError as error:
        raise ImportError(f"{NEEDS} (there is no {error.name})") from error
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(short=short, integer=integer, marked=_marked)
    template = environment.from_string(_file("report.html.j2"))
    specs: dict[str, Spec] = charts(profile)
    return template.render(
        **_contents(profile),
        charts=specs,
        data=Markup(_inside(data)),
        specs=Markup(_inside(specs)),
        style=Markup(_file("style.css")),
        script=Markup(_script()),
    )


@cache
def _script() -> str:
    """The script of the page, with the library that draws the charts; it takes a second to make."""
    import vl_convert

    bundle: str = vl_convert.javascript_bundle(_file("script.js"))
    return bundle.replace("</script", "<\\/script")


def _contents(profile: Results) -> dict[str, Any]:
    """What the template names."""
    limited = has_curvature(profile) and not is_unsettled(profile)
    batches = contents.batch_sizes(profile) if limited else []
    compared = contents.compared(profile, batches) if limited else ()
    parts = [("layer", _layers(profile.layers))]
    if len(profile.groups) > 1:
        parts.append(("parameter group", _layers(profile.groups)))
    return {
        "p": profile,
        "version": version(),
        "size": integer(profile.parameters),
        "samples": integer(profile.samples),
        "population": integer(profile.population) if profile.population < 1e18 else "∞",
        "in_use": contents.in_use(profile),
        "title": contents.title(profile),
        "advice": profile.recommend(),
        "findings": contents.findings(profile),
        "caveats": contents.caveats(profile),
        "key_rows": contents.key_rows(profile),
        "level": percent(profile.level),
        "symbols": contents.SYMBOLS,
        "exactness": contents.exactness(profile),
        "map_words": " ".join(compared[:2]),
        "batches": batches,
        "rates": contents.rate_rows(profile, batches) if limited else [],
        "compared": compared,
        "spectra": [(name, _about(name, seen)) for name, seen in profile.spectra.items()],
        "limiting": limiting_layer(profile),
        "parts": parts,
        "measured_rows": contents.measured_rows(profile),
        "units": contents.units(profile),
        "how_measured": [*contents.how_measured(profile), *contents.when_and_where(profile)],
        "date": profile.date,
    }


def _layers(layers: Mapping[str, Layer]) -> list[dict[str, Any]]:
    """Rows of the table, the noisiest first."""
    placed = enumerate(layers.values())  # in the order of the model
    ranked = sorted(placed, key=lambda pair: -pair[1].noise_share)
    return [_layer(layer, place) for place, layer in ranked]


def _layer(layer: Layer, place: int) -> dict[str, Any]:
    scale, interval = cells(layer.simple_noise_scale, "")
    known = layer.simple_noise_scale
    return {
        "name": layer.name or "(root)",
        "place": place,
        "size": layer.size,
        "noise": _share(layer.noise_share),
        "sharpness": _share(layer.sharpness_share),
        "scale": scale,
        "interval": interval,
        "order": max(-1e300, min(1e300, known.low if math.isnan(known.value) else known.value)),
    }


def _about(name: str, seen: Spectrum) -> str:
    """What is seen of a matrix, for those who do not see the curve."""
    return (
        f"{integer(seen.size)} eigenvalues of {name}, from {short(seen.lowest)} or below to "
        f"{short(seen.highest)} or above, each broadened by {short(seen.width)}; from "
        f"{seen.products} products with one random vector. Shaded: {percent(seen.level)} interval "
        f"at each point."
    )


def _marked(sentence: str) -> Any:
    """The sentence with names of code between ` and ` set as code."""
    from markupsafe import Markup, escape

    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", str(escape(sentence))))


def _share(share: float | Estimate | None) -> float | None:
    """A part of the whole, from 0 to 1; None where it is not known."""
    if share is None or float(share) != float(share):
        return None
    return min(1.0, max(0.0, float(share)))


def _inside(value: Any) -> str:
    """JSON that can stand in a page: no sign in it ends a script."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _file(name: str) -> str:
    return (
        resources.files(__package__).joinpath("template").joinpath(name).read_text(encoding="utf-8")
    )
