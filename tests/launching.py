"""Starts programs on several ranks by torchrun, with a deadline that ends all of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

ROOT = Path(__file__).parents[1]
Launched = Callable[[int, str], list[dict[str, Any]]]  # the fixture `results_of`
TOGETHER: dict[int, tuple[tuple[str, ...], ...]] = {
    2: (
        ("drawn", "drifted", "measured", "meshes", "sharded", "stops"),
        ("failures", "training", "vectors"),
    ),
}
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
    """What each rank has written; see `tests.rank_program`.

    Several programs are started as one, by the first test that asks for one of them: half of the
    time of a small program is that of its start.

    Args:
        count: of ranks.
        name: of the program.
        folder: that all tests of a session have in common.
    """
    group = next((names for names in TOGETHER.get(count, ()) if name in names), (name,))
    own = folder / f"{count} {group[0]}"
    with FileLock(f"{own}.lock"):
        if not own.exists():
            own.mkdir()
            code, out, err = torchrun(count, "-m", "tests.rank_program", str(own), *group)
            (own / "code").write_text(str(code))
            (own / "output").write_text(out + err)
    assert (own / "code").read_text() == "0", (own / "output").read_text()
    files = [own / f"{name} {rank}.pt" for rank in range(count)]
    return [torch.load(file, weights_only=False) for file in files]
