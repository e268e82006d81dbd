"""tr(HΣ) and GᵀHG from disjoint blocks of the samples, where these are a part of the population.

The samples are cut into M random blocks a of b samples, with H_a, ḡ_a and noise vectors

    u_a = Σ_{i∈a} s_i c_i/√b,   E[u_au_aᵀ] = Σ (n - 1)/n.

y_a = u_{a-r}ᵀH_au_{a-r} has H and Σ from different samples: its mean is tr(HΣ)(n - 1)/n without the
third moments K3 of `noise_scale`, up to K3/n². In two rounds, r = 1 and 2 around the ring of blocks
with signs of their own, every block is met four times. What a block does to the mean, as a source
of noise and of curvature, is the mean over both rounds of its two values; the variance of these
over blocks is that of sampling, less the part in which the rounds differ, which is chance.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...linalg.deflation import Deflation
from ...moments.moments import GradientMoments
from ...operators.gradients import PerSampleGradients
from ...operators.hessian import Hessian
from ...per_sample.contract.engine import Engine
from ...problem.problem import Problem
from ...statistics.skew import Skew
from ...tensors.random import generator
from ...tensors.sums import by_parameter
from ...tensors.trees import flatten, sample_count, to_device, widen
from .errors import third_moment
from .sign_probes import Known, sizes_of
from .sums import NoiseScale, Parts, Sums

BLOCKS = 32
ROUNDS = 2
SAME = 4  # of so many blocks one also meets its own noise, for K3


@dataclass(frozen=True, eq=False)
class Block:
    """Some samples and what they give.

    Args:
        positions: of its samples, sorted.
        mean: ḡ_a, shape (P,).
        noises: u_a with independent signs, shape (ROUNDS, P).
    """

    positions: Tensor
    mean: Tensor
    noises: Tensor


def block_noise_scale(
    hessian: Hessian,
    engine: Engine,
    moments: GradientMoments,
    near: Deflation,
    image: Tensor,
    *,
    seed: int = 0,
    tick: Any = None,
) -> NoiseScale:
    """The noise scales of samples that are a part of the population.

    Args:
        hessian, engine, moments: of the same samples.
        near: of a Hessian that is similar; what it tells is taken out of the values.
        image: Hḡ.
        seed: of the blocks and the signs.
        tick: called with 1 after every block.
    """
    mean = flatten([*moments.mean.values()])
    rows = PerSampleGradients.of(hessian.problem, engine=engine)
    with hessian.problem.guard():
        known = Known.of(near, rows, mean)
        found = _Ring(hessian, moments, known, mean, image, sizes_of(rows))
        for block, before in _around(hessian.problem, mean, seed):
            found.meet(block, before)
            if tick is not None:
                tick(1)
    return found.sums().scales(moments, hessian.product_error)


def _around(problem: Problem, mean: Tensor, seed: int) -> Iterator[tuple[Block, list[Block]]]:
    """Every block with the ROUNDS before it, the nearest first."""
    source, count = generator(seed), problem.samples.count
    pieces = torch.randperm(count, generator=source).tensor_split(BLOCKS)
    first = [_made(problem, p.sort().values, mean, source) for p in pieces[-ROUNDS:]]
    before, ahead = first[::-1], dict(enumerate(first, BLOCKS - ROUNDS))
    for k, piece in enumerate(pieces):
        block = ahead.get(k) or _made(problem, piece.sort().values, mean, source)
        yield block, before
        before = [block, *before[:-1]]


def _made(problem: Problem, positions: Tensor, mean: Tensor, source: torch.Generator) -> Block:
    count, objective = len(positions), problem.objective
    signs = 2.0 * torch.randint(0, 2, (ROUNDS, count), generator=source) - 1
    weights = torch.cat([signs / math.sqrt(count), torch.full((1, count), 1 / count)]).to(mean)
    batches = problem.samples.taken(positions, max(problem.samples.counts))
    totals = mean.new_zeros(len(weights), len(mean))
    parts = torch.split(weights, [*map(sample_count, batches)], dim=1)
    for batch, own in zip(batches, parts, strict=True):
        gradients = objective.gradients(to_device(batch, objective.device), own)
        for total, gradient in zip(totals, gradients, strict=True):
            total += flatten(gradient)
    noises = totals[:ROUNDS] - weights[:ROUNDS].sum(1)[:, None] * mean
    return Block(positions, totals[-1], noises)


class _Ring:
    """The numbers of every block, and the estimates from them."""

    def __init__(
        self,
        hessian: Hessian,
        moments: GradientMoments,
        known: Known,
        mean: Tensor,
        image: Tensor,
        sizes: list[int],
    ) -> None:
        self._hessian, self._moments, self._known = hessian, moments, known
        self._mean, self._image, self._sizes = mean, image, sizes
        self._values: list[Tensor] = []  # y of both rounds, (ROUNDS,) each
        self._parts: list[Tensor] = []  # the same by parameter, (ROUNDS, p) each
        self._same: list[Tensor] = []  # uᵀH_au of a block's own noise
        self._mixed: list[Tensor] = []  # (H_aḡ)ᵀ(ḡ_a - ḡ)
        self._curvatures: list[Tensor] = []  # what a block does to GᵀHG
        self._squares: list[Tensor] = []  # (uᵀH_av)² of two noises

    def meet(self, block: Block, before: list[Block]) -> None:
        """The curvature of a block along the mean, and along the noises of those before it."""
        noises = torch.stack([other.noises[r] for r, other in enumerate(before)])
        asked = [self._mean[None], noises]
        if len(self._values) % SAME == 0:
            asked.append(block.noises[:1])
        ones = torch.ones(len(block.positions))
        few = Hessian.of_few(self._hessian.problem, block.positions, ones)
        along, *images = widen(few @ torch.cat(asked).T).T
        gap = block.mean - self._mean
        self._mixed.append(along @ gap)
        self._curvatures.append(2 * (self._image @ gap) + self._mean @ (along - self._image))
        self._squares.append((noises[0] @ images[1]).square())
        if len(images) > ROUNDS:
            self._same.append(block.noises[0] @ images[ROUNDS])
        own = self._known.own
        values, parts = [], []
        for other, noise, image in zip(before, noises, images, strict=False):
            deflation = self._known.deflation
            rest = image - deflation.image(deflation.coordinates(noise))
            parts.append(by_parameter(noise, rest, self._sizes))
            values.append(parts[-1].sum() + own[other.positions].mean())
        self._values.append(torch.stack(values))
        self._parts.append(torch.stack(parts))

    def sums(self) -> Sums:
        """Everything together."""
        moments, n, factor = self._moments, self._moments.count, self._moments.sampling_factor
        scale, blocks = n / (n - 1), len(self._values)
        values = scale * torch.stack(self._values).T  # (ROUNDS, M), by the block that gives H
        off = float(values.mean())
        size = n / blocks
        third = size * (scale * float(torch.stack(self._same).mean()) - off)
        trace = off + third / moments.population
        mixed = size * float(torch.stack(self._mixed).sum()) / (blocks - 1) - factor * third
        along = float(self._mean @ self._image)
        curvature = along - factor * (trace + 2 * mixed + (1 / n - 2 / moments.population) * third)

        as_noise = torch.stack([row.roll(-r) for r, row in enumerate(values, 1)])
        influences = values + as_noise - 2 * off
        other = torch.stack(self._curvatures)
        chance = float(influences.var(0).mean())  # of one round
        of_blocks = moments.spread_factor * size
        matrix = torch.cov(torch.stack([influences.mean(0), other])) * of_blocks
        weakest = 2 * float(torch.stack(self._squares).mean())
        of_probes = chance / (2 * ROUNDS * blocks)
        parts = scale * torch.stack(self._parts).flatten(0, 1) + self._known.parts
        return Sums(
            trace=trace,
            curvature=curvature,
            of_probes=(of_probes, factor**2 * of_probes),
            of_samples=(
                max(
                    float(matrix[0, 0]) - of_blocks * chance / ROUNDS,
                    moments.spread_factor**2 * weakest,
                ),
                max(float(matrix[1, 1]), factor**2 * weakest),
                float(matrix[0, 1]),
            ),
            freedom=(ROUNDS * blocks - 1, blocks - 1),
            skew=self._skew(influences, other, blocks),
            parts=Parts(
                by_parameter(self._mean, self._image, self._sizes) - factor * parts.mean(0),
                parts,
                False,
            ),
        )

    def _skew(self, influences: Tensor, other: Tensor, blocks: int) -> Skew:
        moment = third_moment(influences, other - other.mean())
        scale = blocks / ((blocks - 1) * (blocks - 2))
        population = self._moments.spread_population * blocks / self._moments.count
        return Skew.from_moment(moment * scale, blocks, population)
