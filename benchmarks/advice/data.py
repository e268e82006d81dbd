"""Training sets without a download: scikit-learn's digits, generated tables, Python's source."""

from __future__ import annotations

import sysconfig
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits, make_classification, make_friedman1
from torch import Tensor

SAMPLES = 8192
WORDS = 97  # the 96 most frequent bytes, and one word for all others
Data = tuple[Tensor, ...]


def digits(wrong: float = 0.0) -> Data:
    """The 1797 images and their shifts by one pixel; a share of labels drawn at random."""
    bunch = load_digits()
    images = torch.as_tensor(bunch.images, dtype=torch.float32) / 16
    moves = [(0, 0), (0, 1), (0, -1), (1, 0), (-1, 0)]
    shifted = torch.cat([torch.roll(images, move, dims=(1, 2)) for move in moves]).flatten(1)
    labels = torch.as_tensor(bunch.target).repeat(len(moves))
    chosen = torch.randperm(len(labels), generator=source())[:SAMPLES]
    return shifted[chosen], mislabelled(labels[chosen], 10, wrong)


def digit_images() -> Data:
    return digits()[:1]


def clusters(wrong: float) -> Data:
    """Eight classes of two clusters each in 32 dimensions, some labels wrong."""
    inputs, labels = make_classification(
        SAMPLES, 32, n_informative=12, n_redundant=8, n_classes=8, n_clusters_per_class=2,
        flip_y=0.0, class_sep=1.5, random_state=0,
    )  # fmt: skip
    return standardised(inputs), mislabelled(torch.as_tensor(labels), 8, wrong)


def separable() -> Data:
    """Two classes far apart in 30 dimensions: a network fits them without error."""
    inputs, labels = make_classification(
        SAMPLES, 30, n_informative=10, n_redundant=10, n_clusters_per_class=2, flip_y=0.0,
        class_sep=3.0, random_state=0,
    )  # fmt: skip
    return standardised(inputs), torch.as_tensor(labels)


def friedman() -> Data:
    """Friedman's first regression problem, targets of variance one of which 0.2 is noise."""
    inputs, targets = make_friedman1(SAMPLES, 10, noise=0.0, random_state=0)
    clean = standardised(targets[:, None])[:, 0]
    noise = torch.randn(SAMPLES, generator=source())
    return standardised(inputs), 0.8**0.5 * clean + 0.2**0.5 * noise


def table(wrong: float) -> Data:
    """Like a table of land cover: skewed measurements, two categories, seven unequal classes."""
    draw = source()
    numbers = torch.randn(SAMPLES, 10, generator=draw) @ torch.randn(10, 10, generator=draw)
    numbers = torch.cat([numbers[:, :6], (numbers[:, 6:] / 3).exp().clamp(max=20)], 1)
    kinds = [torch.randint(count, (SAMPLES,), generator=draw) for count in (4, 20)]
    columns = [torch.nn.functional.one_hot(kind).float() for kind in kinds]
    inputs = torch.cat([standardised(numbers.numpy()), *columns], 1)
    hidden = torch.tanh(inputs @ torch.randn(34, 24, generator=draw) * 0.7)
    scores = hidden @ torch.randn(24, 7, generator=draw) - 1.5 * torch.arange(7)
    return inputs, mislabelled(scores.argmax(1), 7, wrong)


def python_source(tokens: int, samples: int) -> Data:
    """Pieces of Python's standard library: `tokens` bytes, and the same moved by one."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    text = b"".join(path.read_bytes() for path in sorted(folder.glob("*.py")))
    letters = np.frombuffer(text, dtype=np.uint8)
    frequent = np.bincount(letters, minlength=256).argsort()[::-1][: WORDS - 1]
    words = np.full(256, WORDS - 1)
    words[frequent] = np.arange(WORDS - 1)
    starts = torch.randperm(len(letters) // tokens - 1, generator=source())[:samples] * tokens
    places = starts[:, None] + torch.arange(tokens + 1)
    pieces = torch.as_tensor(words[letters])[places]
    return pieces[:, :-1].contiguous(), pieces[:, 1:].contiguous()


def source() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def standardised(values: np.ndarray) -> Tensor:
    return torch.as_tensor((values - values.mean(0)) / values.std(0), dtype=torch.float32)


def mislabelled(labels: Tensor, classes: int, share: float) -> Tensor:
    """A share of labels replaced by another class."""
    draw = torch.Generator().manual_seed(1)
    wrong = torch.rand(len(labels), generator=draw) < share
    moved = labels + torch.randint(1, classes, labels.shape, generator=draw)
    return torch.where(wrong, moved % classes, labels)
