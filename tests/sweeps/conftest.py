"""A small sweep; one program counts as faster, whatever the clock says, unless a test says not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

import gradnoise as gn
from tests.training import swept


@pytest.fixture(autouse=True, scope="module")
def _one_program_is_faster() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gradnoise.sweeps.vectorise.seconds_per_step", lambda *_: (1.0, 2.0))
        yield


@pytest.fixture(scope="module")
def found() -> gn.Sweep:
    """Four cells of two runs each, none of which diverges."""
    return replace(swept(), settings={})
