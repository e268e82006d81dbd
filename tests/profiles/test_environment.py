"""When and where a profile was measured."""

from __future__ import annotations

import getpass
import platform
import socket
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
import torch

import gradnoise as gn
from gradnoise.profiles.environment import environment, now


def test_the_time_is_that_of_the_clock_in_utc_to_the_second() -> None:
    read = datetime.fromisoformat(now())
    assert read.utcoffset() == timedelta(0)
    assert read.microsecond == 0
    assert abs(datetime.now(timezone.utc) - read) < timedelta(seconds=5)


def test_a_profile_says_when_and_where_it_was_measured(resolved: gn.Profile) -> None:
    assert datetime.fromisoformat(resolved.date) <= datetime.now(timezone.utc)
    assert resolved.environment["python"] == platform.python_version()
    assert resolved.environment["threads"].isdecimal()
    assert set(resolved.environment) == {"python", "platform", "threads", "device"}


def test_nothing_in_it_is_private(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "release", lambda: "6.1-of-somebody")
    monkeypatch.setattr(platform, "node", lambda: "somebodys-host")
    text = " ".join(environment(torch.device("cpu")).values())
    for private in (socket.gethostname(), getpass.getuser(), str(Path.home()), "somebody"):
        assert private not in text


@pytest.mark.parametrize(("kind", "name"), [("mps", "mps"), ("cpu", "cpu (")])
def test_other_devices_are_named_by_their_kind(kind: str, name: str) -> None:
    assert environment(torch.device(kind))["device"].startswith(name)


@pytest.mark.cuda
def test_a_cuda_device_is_named_by_its_model() -> None:
    device = torch.device("cuda", 0)
    assert environment(device)["device"] == torch.cuda.get_device_name(device)
