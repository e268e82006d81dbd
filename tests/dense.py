"""An operator written out."""

from __future__ import annotations

import torch
from torch import Tensor

from gradnoise.linalg.operator import Operator

CLOSE = {"rtol": 1e-9, "atol": 1e-11}


def dense(operator: Operator) -> Tensor:
    return operator @ torch.eye(operator.shape[1], dtype=torch.float64)
