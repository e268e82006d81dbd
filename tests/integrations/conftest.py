"""accelerate keeps its state for the whole process; every test begins without one."""

from __future__ import annotations

import pytest
from accelerate.state import AcceleratorState, GradientState, PartialState


@pytest.fixture(autouse=True)
def _no_accelerate_state() -> None:
    AcceleratorState._reset_state()
    PartialState._reset_state()
    GradientState._reset_state()
