"""Starts programs on several ranks by torchrun, with a deadline that ends all of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parents[1]
DEADLINE = 240  # seconds; a machine that is busy with other tests takes several times as long


def torchrun(count: int, *program: str, deadline: float = DEADLINE) -> tuple[int, str, str]:
    """Exit code and output of a program on so many ranks; no process is left.

    Raises:
        AssertionError: it has not ended within the deadline.
    """
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc-per-node={count}", *program]
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    run = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths},
    )  # fmt: skip
    try:
        out, err = run.communicate(timeout=deadline)
    except subprocess.TimeoutExpired:
        os.killpg(run.pid, signal.SIGKILL)
        out, err = run.communicate()
        raise AssertionError(f"not ended after {deadline} s: {out[-2000:]} {err[-4000:]}") from None
    assert not _members(run.pid), "processes were left behind"
    return run.returncode, out, err


def _members(group: int) -> bool:
    """Whether any process of a session is alive."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def results_of(count: int, name: str, folder: Path) -> list[dict[str, Any]]:
    """What each rank has written; see `tests.rank_program`."""
    code, out, err = torchrun(count, "-m", "tests.rank_program", name, str(folder))
    assert code == 0, out + err
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(count)]
