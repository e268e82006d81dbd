"""Profiles as JSON with a schema version: no pickle, no half-written file."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch

from ..errors import ProfileFileError
from ..files.atomic import replace_file
from ..files.json import decode, encode
from ..files.version import version
from ..learning_rate.advice import Recommendation
from ..learning_rate.mean_square import CurvatureSpread
from ..moments.layer import Layer
from ..problem.optimizer_settings import OptimizerSettings
from ..statistics.estimate import Estimate
from .cost import Cost
from .possible import check_possible
from .spectra import Spectrum
from .verdict import verdict_of

DATA = re.compile(r'<script type="application/json" id="gradnoise-profile">(.*?)</script>', re.S)
FORMAT, SCHEMA = "gradnoise-profile", 2
READ = (1, SCHEMA)  # 1 has no date, no environment and no verdict
_LAYER_ESTIMATES = ("grad_sq_norm", "trace_cov", "simple_noise_scale")
_LAYER_SHARES = ("sharpness_share", "curvature_share", "curvature_noise_share")  # or None


def versions() -> dict[str, str]:
    """The versions that a result was computed with."""
    return {"gradnoise": version(), "torch": str(torch.__version__)}


def to_dict(profile: Any) -> dict[str, Any]:
    """A profile as built-in values; inf and nan as strings, because JSON has no such numbers."""
    plain = {f.name: getattr(profile, f.name) for f in fields(profile)}
    plain["estimates"] = {name: e.to_dict() for name, e in profile.estimates.items()}
    for kind in ("layers", "groups"):
        parts = getattr(profile, kind)
        plain[kind] = {name: _layer_to_dict(layer) for name, layer in parts.items()}
    spread = profile.curvature_spread
    plain["curvature_spread"] = None if spread is None else asdict(spread)
    plain["advised"] = None if profile.advised is None else asdict(profile.advised)
    plain["spectra"] = {name: asdict(seen) for name, seen in profile.spectra.items()}
    plain["cost"] = None if profile.cost is None else asdict(profile.cost)
    plain["optimizer"] = None if profile.optimizer is None else asdict(profile.optimizer)
    result: dict[str, Any] = encode(
        {"format": FORMAT, "schema": SCHEMA, **plain, "verdict": verdict_of(profile)}
    )
    return result


def json_schema() -> dict[str, Any]:
    """The JSON Schema of what `to_dict` gives."""
    text = Path(__file__).with_name("profile.schema.json").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


def json_text(contents: dict[str, Any]) -> str:
    """JSON with a line for every value."""
    return json.dumps(contents, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def save(contents: dict[str, Any], path: str | Path) -> None:
    """Write JSON, the whole file or nothing."""
    text = json_text(contents)
    try:
        replace_file(path, lambda file: file.write(text.encode()))
    except OSError as error:
        raise ProfileFileError(f"cannot write {path}: {error.strerror}") from error


def load(cls: Any, path: str | Path) -> Any:
    """A profile from a file that `save` wrote."""
    contents = _read(Path(path))
    if not isinstance(contents, dict) or contents.get("format") != FORMAT:
        raise ProfileFileError(
            f"{path} is not a profile: it does not say format={FORMAT!r}. Load a file that "
            f"Profile.save or --json wrote"
        )
    if contents.get("schema") not in READ:
        known = " and ".join(map(str, READ))
        raise ProfileFileError(
            f"{path} has schema {contents.get('schema')!r} and this version reads {known}; "
            f"use the version of gradnoise that wrote it, or measure again"
        )
    try:
        contents.pop("verdict", None)  # what follows is computed anew
        found = _profile(cls, decode(contents, _NUMBERS))
        check_possible(found)
        str(found)  # what cannot even be told is damaged
        return found
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
        raise ProfileFileError(
            f"{path} is a damaged profile ({type(error).__name__}: {error}); measure again"
        ) from error


def _read(path: Path) -> Any:
    try:
        text = path.read_text(encoding="utf-8")
        is_page = text[:200].lstrip().lower().startswith("<!doctype html")
        inside = DATA.search(text) if is_page else None
        return json.loads(inside[1] if inside else text)
    except OSError as error:
        raise ProfileFileError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ProfileFileError(f"{path} is not a profile: no valid JSON ({error})") from error


def _profile(cls: Any, contents: dict[str, Any]) -> Any:
    known = {f.name for f in fields(cls)}
    plain = {name: value for name, value in contents.items() if name in known}
    estimates = {name: Estimate.from_dict(e) for name, e in plain["estimates"].items()}
    layers, groups = (
        {name: _layer_from_dict(layer) for name, layer in parts.items()}
        for parts in (plain["layers"], plain.get("groups", {}))  # no groups in older files
    )
    spread = plain.get("curvature_spread")  # none in older files
    optimizer, cost = plain["optimizer"], plain.get("cost")  # no cost in older files
    advised, spectra = plain.get("advised"), plain.get("spectra", {})  # nor these
    if optimizer is not None:
        optimizer = OptimizerSettings(**{**optimizer, "notes": tuple(optimizer["notes"])})
    return cls(
        **{
            **plain,
            "estimates": estimates,
            "layers": layers,
            "groups": groups,
            "cost": None if cost is None else Cost(**cost),
            "curvature_spread": None if spread is None else CurvatureSpread.from_dict(spread),
            "optimizer": optimizer,
            "advised": None if advised is None else Recommendation.from_dict(advised),
            "spectra": {name: Spectrum.from_dict(seen) for name, seen in spectra.items()},
            "warnings": tuple("".join([text]) for text in plain["warnings"]),  # texts, or TypeError
        }
    )


def _layer_to_dict(layer: Layer) -> dict[str, Any]:
    own = {f.name: getattr(layer, f.name) for f in fields(layer)}
    known = [name for name in (*_LAYER_ESTIMATES, *_LAYER_SHARES) if own[name] is not None]
    return {**own, **{name: own[name].to_dict() for name in known}}


def _layer_from_dict(contents: dict[str, Any]) -> Layer:
    shares = [name for name in _LAYER_SHARES if contents.get(name) is not None]
    estimates = {name: Estimate.from_dict(contents[name]) for name in (*_LAYER_ESTIMATES, *shares)}
    names = tuple(contents.get("parameters", ()))
    return Layer(**{**contents, **estimates, "parameters": names})


_NUMBERS = (
    *("value", "low", "high", "level", "stderr", "population", "noise_share"),
    *("lr", "momentum", "weight_decay", "critical", "mean", "covariance", "labels_per_sample"),
    *("passes", "seconds", "products", "half_width", "grid", "density", "width"),
    *("lowest", "highest"),
)
