"""What all tests share: which are left out, and how far randomised ones search.

Tests that need a device say so; here they are left out by name, never skipped in silence.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import settings

# the same examples at every run; `--hypothesis-profile=fuzz` searches at large (`make fuzz`)
settings.register_profile("ci", derandomize=True, database=None, deadline=None, max_examples=100)
settings.register_profile(
    "fuzz", derandomize=False, deadline=None, max_examples=2000, print_blob=True
)
settings.load_profile("ci")

torch.set_num_threads(1)  # the problems are tiny; threads would only wait for each other


@pytest.fixture(autouse=True)
def _fresh() -> None:
    """No test depends on which others ran before it."""
    torch.manual_seed(0)
    if "torch._dynamo" in sys.modules:  # code compiled in too many ways would run uncompiled
        torch.compiler.reset()


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines that are long enough for every column, wherever tests run."""
    monkeypatch.setenv("COLUMNS", "100")


@pytest.fixture(name="results_of")
def _results_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int, str], list[Any]]:
    """What each of so many ranks has written, of a program of `tests.rank_program`."""
    from tests.launching import results_of

    own = tmp_path_factory.getbasetemp()
    folder = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    return functools.partial(results_of, folder=folder)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect what needs CUDA where there is none; pytest's last line counts them."""
    if torch.cuda.is_available():
        return
    needing = [item for item in items if item.get_closest_marker("cuda")]
    config.hook.pytest_deselected(items=needing)
    items[:] = [item for item in items if item not in needing]
