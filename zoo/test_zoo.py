"""Models of real packages, as they are trained: moments, norms and λ of every unit by autograd."""

from __future__ import annotations

import dataclasses
import importlib
import json
from pathlib import Path

import pytest
import torch

from .case import Case
from .held import measured

PACKAGES = (
    *("timm", "torchvision", "transformers", "peft", "torch_geometric", "diffusers"),
    *("segmentation_models_pytorch", "torchdiffeq", "lightning"),
)
FOUND = Path(__file__).parent / "out"  # one file for each case; zoo/table.py reads them
torch.set_num_threads(1)


def _cases() -> list[Case]:
    found = []
    for package in PACKAGES:
        own = importlib.import_module(f"zoo.cases.{package}").CASES
        found += [dataclasses.replace(case, package=package) for case in own]
    return found


@pytest.mark.parametrize("case", _cases(), ids=lambda case: f"{case.package}-{case.name}")
def test_zoo(case: Case) -> None:
    row = measured(case)
    FOUND.mkdir(exist_ok=True)
    name = f"{case.package}-{case.name}".replace("/", "_").replace(" ", "_")
    (FOUND / f"{name}.json").write_text(json.dumps(row.to_dict()), encoding="utf-8")
