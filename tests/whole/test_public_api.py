"""Public names, their documentation and `__all__` are one list."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.metadata
import inspect
import pkgutil
import re
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import numpy as np
import pytest
from torch import Tensor

import gradnoise as gn
from gradnoise.problem.options import Options

ROOT = Path(__file__).parents[2]
ITEMS = {name: getattr(gn, name) for name in gn.__all__}
CALLABLES = {
    name: item
    for name, item in ITEMS.items()
    if inspect.isfunction(item) or (inspect.isclass(item) and not issubclass(item, Exception))
}
PROFILE = {
    name: item
    for name, item in inspect.getmembers_static(gn.Profile)
    if not name.startswith("_") and isinstance(item, (types.FunctionType, property, classmethod))
}


def test_the_front_door_holds_what_it_lists_and_nothing_else() -> None:
    public = {
        name
        for name, item in vars(gn).items()
        if not name.startswith("_")
        and not inspect.ismodule(item)
        and getattr(item, "__module__", "").startswith("gradnoise")
    }
    assert public == set(gn.__all__) - {"pictures", "toy"}
    assert len(gn.__all__) == len(set(gn.__all__))


def test_the_api_page_lists_the_same_names() -> None:
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    listed = re.findall(r"^- `gn\.(\w+)", page, flags=re.M)
    assert sorted(listed) == sorted(gn.__all__)
    methods = re.findall(r"^- `p\.(\w+)", page, flags=re.M)
    assert sorted(methods) == sorted([*PROFILE, *gn.Profile.__dataclass_fields__])


@pytest.mark.parametrize("name", CALLABLES)
def test_every_public_name_is_documented(name: str) -> None:
    text = inspect.getdoc(CALLABLES[name]) or ""
    assert len(text.split()) >= 5
    if inspect.isfunction(CALLABLES[name]):
        assert "Raises:" in text
        assert "Example:" in text


POSITIONAL = {  # model and optimizer, as loops have them; a profile and its rules
    *[("NoiseMonitor", "optimizer"), ("check", "rules")],
}


@pytest.mark.parametrize("name", CALLABLES)
def test_options_are_named_and_keyword_only(name: str) -> None:
    numbers_only = CALLABLES[name].__module__ == "gradnoise.learning_rate.formulas"
    results = inspect.isclass(CALLABLES[name]) and dataclasses.is_dataclass(CALLABLES[name])
    for parameter in inspect.signature(CALLABLES[name]).parameters.values():
        assert parameter.kind is not inspect.Parameter.VAR_KEYWORD
        optional = parameter.default is not inspect.Parameter.empty
        named = (name, parameter.name) in POSITIONAL
        if optional and not numbers_only and not results and not named and name != "Status":
            assert parameter.kind is inspect.Parameter.KEYWORD_ONLY, parameter.name


def test_calls_have_the_same_defaults() -> None:
    calls = (item for item in CALLABLES.values() if not dataclasses.is_dataclass(item))
    signatures = [inspect.signature(call).parameters for call in calls]
    for option in ("metric", "level", "seed", "micro_batch", "engine"):
        found = {getattr(Options(), option)}
        own = {p[option].default for p in signatures if option in p}
        assert own - {inspect.Parameter.empty} == found, option


@pytest.mark.parametrize("name", PROFILE)
def test_every_method_of_a_profile_is_documented(name: str) -> None:
    item: Any = PROFILE[name]
    assert inspect.getdoc(item.fget if isinstance(item, property) else getattr(gn.Profile, name))


FIXED = """
profile Profile per_sample_gradients per_sample_sq_norms gradient_moments noise_scale sharpness
Hessian GaussNewton GradientCovariance PerSampleGradients lanczos spectral_density temperature
effective_lr stable_lr max_lr scale_lr regime toy
supervised causal_lm trace simple_noise_scale_from_norms noise_scale_from_gradients
"""
FIXED_OF_A_PROFILE = """
loss grad_sq_norm trace_cov simple_noise_scale noise_scale sharpness grad_curvature
trace_hessian_cov curvature_noise_scale temperature stable_lr max_lr greedy_lr mean_square_lr
regime recommend plot to_dict save load layers samples population engine optimizer warnings
"""


def test_the_names_that_other_code_relies_on_are_there() -> None:
    assert set(FIXED.split()) <= set(gn.__all__)
    assert set(FIXED_OF_A_PROFILE.split()) <= {*PROFILE, *gn.Profile.__dataclass_fields__}


def test_every_error_derives_from_one() -> None:
    errors = [
        item for item in ITEMS.values() if inspect.isclass(item) and item.__name__.endswith("Error")
    ]
    assert len(errors) == 16
    assert all(issubclass(error, gn.GradNoiseError) for error in errors)


def records() -> dict[str, type]:
    """Every dataclass of the package, by the name of its module and its own."""
    modules = [
        importlib.import_module(found.name)
        for found in pkgutil.walk_packages(gn.__path__, "gradnoise.")
        if not found.name.endswith("__main__")
    ]
    return {
        f"{item.__module__}.{item.__name__}": item
        for module in modules
        for item in vars(module).values()
        if dataclasses.is_dataclass(item) and isinstance(item, type)
    }


RECORDS = records()


def holds_tensors(kind: Any) -> bool:
    """Whether values of this annotated type compare tensors or arrays that they hold."""
    if get_origin(kind) in (Callable, np.ndarray):
        return get_origin(kind) is np.ndarray
    if get_args(kind):
        return any(map(holds_tensors, get_args(kind)))
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        hints = get_type_hints(kind)
        return any(holds_tensors(hints[f.name]) for f in dataclasses.fields(kind) if f.compare)
    return isinstance(kind, type) and issubclass(kind, (Tensor, np.ndarray))


WITH_TENSORS = """
Alignment Covariance Curve Diagnostics Diagonal Eigenpairs GradientMoments RunPool Sharpness
SignalToNoise SpectralDensity
"""


def test_which_public_records_hold_tensors() -> None:
    public = {c for c in ITEMS.values() if isinstance(c, type) and dataclasses.is_dataclass(c)}
    assert {c.__name__ for c in public if holds_tensors(c)} == set(WITH_TENSORS.split())


@pytest.mark.parametrize("name", RECORDS)
def test_records_with_tensors_are_equal_to_themselves_alone(name: str) -> None:
    """`==` of their fields would raise: a tensor of several entries has no truth value."""
    kind: Any = RECORDS[name]
    assert kind.__dataclass_params__.eq is not holds_tensors(kind)
    if holds_tensors(kind):
        assert kind.__eq__ is object.__eq__
        assert kind.__hash__ is object.__hash__


def test_the_version_is_that_of_the_package() -> None:
    assert gn.__version__ == importlib.metadata.version("gradnoise")
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = gn.no_such_name
