"""When and where a profile was measured; nothing that tells whose machine it was."""

from __future__ import annotations

import platform
from datetime import datetime, timezone

import torch


def now() -> str:
    """The time in UTC to the second, ISO 8601: "2026-11-30T14:21:44+00:00"."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def environment(device: torch.device) -> dict[str, str]:
    """What speed and rounding depend on; no name of a host, a user or a path.

    Args:
        device: that the parameters are on.
    """
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",  # the release may name its owner
        "threads": str(torch.get_num_threads()),
        "device": _name_of(device),
    }


def _name_of(device: torch.device) -> str:
    """The kind of processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "cpu":
        return f"cpu ({torch.backends.cpu.get_cpu_capability()})"
    return device.type
