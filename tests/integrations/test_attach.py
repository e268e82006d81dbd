"""`gn.attach`: which trainers it knows; what it measures is in the files of each framework."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest
from torch import nn

import gradnoise as gn


def test_its_options_are_those_of_the_monitor() -> None:
    own = dict(inspect.signature(gn.attach).parameters)
    theirs = inspect.signature(gn.NoiseMonitor).parameters
    del own["trainer"], own["model"]
    assert {n: p.default for n, p in own.items()} == {n: theirs[n].default for n in own}


def test_a_model_is_told_how_to_measure_a_loop_of_its_own() -> None:
    with pytest.raises(gn.ArgumentError, match=r"got a model. .*`with monitor.step\(\):`"):
        gn.attach(nn.Linear(2, 1))


def test_something_else_is_told_what_is_known() -> None:
    with pytest.raises(gn.ArgumentError, match=r"accelerate.Accelerator; got dict"):
        gn.attach({})


def test_no_framework_is_imported_before_it_is_needed() -> None:
    code = """
import sys, torch, gradnoise
try:
    gradnoise.attach(torch.nn.Linear(2, 1))
except gradnoise.ArgumentError:
    pass
print(sorted({"transformers", "lightning", "accelerate"} & set(sys.modules)))
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
