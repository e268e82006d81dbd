"""`python -m gradnoise`."""

from __future__ import annotations

import subprocess
import sys


def test_it_is_the_command_line() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "gradnoise", "--version"], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip()
