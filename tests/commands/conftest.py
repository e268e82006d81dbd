"""The user's file of factories, for every command."""

import sys

import pytest

from tests.command_line import FACTORIES, HEAD, TRAINED


@pytest.fixture
def file(tmp_path, monkeypatch):
    """A user's file of factories; its module and folder are forgotten afterwards."""
    path = tmp_path / "users_own_problem.py"
    path.write_text(HEAD + FACTORIES)
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = dict(sys.modules)
    yield path
    for name in [name for name, module in sys.modules.items() if _lies_in(module, tmp_path)]:
        del sys.modules[name]
    sys.modules.update({name: before[name] for name in before.keys() - sys.modules.keys()})


def _lies_in(module, folder):
    return (getattr(module, "__file__", None) or "").startswith(str(folder))


@pytest.fixture
def trainable(tmp_path, monkeypatch):
    """A user's file of factories that return their optimizer."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    path = tmp_path / "own_problem.py"
    path.write_text(TRAINED)
    yield path
    sys.modules.pop("gradnoise_target_own_problem", None)
