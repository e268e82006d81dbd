"""Sums over the samples, streamed in constant memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from ..per_sample.contract.summary import Summary
from ..ranks.ranks import Ranks
from ..ranks.share import Share
from ..tensors.trees import TensorDict, floats, sq_norms_of, unflatten, widen
from .moments import GradientMoments, Whole
from .per_parameter import PerParameter

TOGETHER = 8  # sums of gradients added in their dtype before they are added in float64


class Accumulator:
    """The moments of all summaries so far, added up in place; memory for one mean gradient.

    Summaries of engines that centre are joined by the gaps between their means (Chan, Golub and
    LeVeque 1979): the difference of two large numbers, E[g²] - E[g]², is avoided. It is taken
    once, at the end, for engines that give norms and not gradients.

    Args:
        over: sums numbers over the ranks that hold parts of the gradients.
    """

    def __init__(self, over: Callable[[Tensor], Tensor] | None = None) -> None:
        self._over = over
        self._total: TensorDict = {}
        self._recent: TensorDict = {}  # sums that are not yet in the total
        self._waiting = 0  # summaries in it
        self._spread: dict[str, float] = {}
        self._squares: TensorDict = {}
        self._losses: list[Tensor] = []
        self._norms: list[Tensor] = []
        self._gaps: list[Tensor] = []
        self._count = 0
        self.cancellation = 0.0  # the largest Σ‖g_i‖² of a parameter in units of its spread
        self._raw = False  # whether the spreads are still sums of squares

    def add(self, summary: Summary) -> None:
        """Add the samples of one summary."""
        if not self._count:
            self._raw = summary.centred_sq is None
        elif self._raw and summary.centred_sq is not None:
            self._raw = False
            self._gather()
            self._subtract({name: total / self._count for name, total in self._total.items()})
        elif not self._raw and summary.centred_sq is None:
            summary = self._centred(summary)
        names = list(self._spread or summary.total)  # in the order of the first
        norms = torch.stack([summary.sq_norms[name] for name in names])
        raw = dict(zip(names, norms.sum(1).tolist(), strict=True))
        apart = self._apart(summary)
        for name, total in summary.total.items():
            known = self._spread.get(name, 0.0)
            if summary.centred_sq is None:
                self._spread[name] = known + raw[name]
            else:
                self._spread[name] = known + summary.centred_sq[name] + apart.get(name, 0.0)
            if summary.squares is not None:
                _add(self._squares, name, summary.squares[name])
            self._wait(name, total)
        self._waiting += 1
        if self._waiting == TOGETHER or not self._raw:
            self._gather()
        self._count += len(summary.losses)
        self._losses.append(widen(summary.losses))
        self._norms.append(norms)
        if summary.gap_sq_norms is not None:
            self._gaps.append(torch.stack([summary.gap_sq_norms[name] for name in self._spread]))

    def _wait(self, name: str, total: Tensor) -> None:
        """Add to what waits; the first tensor, the summary's, is neither copied nor changed."""
        known = self._recent.get(name)
        if known is not None:
            total = known.add_(total) if self._waiting > 1 else known + total
        self._recent[name] = total

    def _gather(self) -> None:
        for name, total in self._recent.items():
            known = self._total.get(name)
            if known is None:
                wide = widen(total)
                own = wide is not total or self._waiting > 1
                self._total[name] = wide if own else wide.clone()
            else:
                known.add_(total)
        self._recent, self._waiting = {}, 0

    def _centred(self, summary: Summary) -> Summary:
        """A summary of an engine that does not centre, for a sum that does."""
        own = Accumulator()
        own.add(summary)
        own._subtract({n: widen(t) / own._count for n, t in summary.total.items()})
        self.cancellation = max(self.cancellation, own.cancellation)
        return replace(summary, centred_sq=own._spread, squares=own._squares or None)

    def _subtract(self, mean: TensorDict) -> None:
        means = self._sq_norms(mean[name] for name in self._spread)
        for (name, value), own in zip([*self._spread.items()], means, strict=True):
            self._spread[name] = max(value - self._count * own, 0.0)
            if value:
                lost = value / self._spread[name] if self._spread[name] else math.inf
                self.cancellation = max(self.cancellation, lost)
        for name, square in self._squares.items():
            square.addcmul_(mean[name], mean[name], value=-self._count).clamp_(min=0)

    def _sq_norms(self, tensors: Iterable[Tensor]) -> list[float]:
        """‖·‖² of whole tensors, or of those of which ranks hold parts."""
        found = sq_norms_of(tensors)
        return (
            found
            if self._over is None
            else self._over(torch.tensor(found, dtype=torch.float64)).tolist()
        )

    def _apart(self, summary: Summary) -> dict[str, float]:
        """Σ‖g_i - ḡ‖² of the whole minus those of both parts: n m/(n + m) times the squared gap."""
        if not self._count or summary.centred_sq is None:
            return {}
        count, sums = len(summary.losses), []
        weight = self._count * count / (self._count + count)
        for name, total in summary.total.items():
            gap = widen(total) / count - self._total[name] / self._count
            gap.square_()
            if summary.squares is not None:
                self._squares[name].add_(gap, alpha=weight)
            sums.append(gap.sum())
        return {n: weight * gap for n, gap in zip(summary.total, floats(sums), strict=True)}

    def join(
        self, ranks: Ranks, share: Share, parameters: Mapping[str, Tensor], in_parts: bool = False
    ) -> None:
        """Make these the sums of the samples of all ranks; as in `_apart`, for any number of parts.

        Args:
            ranks: all of them call this.
            share: which samples are those of this one, which may be none.
            parameters: by name.
            in_parts: whether the sums here are this rank's parts of those of all ranks.
        """
        self._gather()
        known = [bool(self._count and not self._raw), bool(self._squares), bool(self._gaps)]
        centred, squared, gapped = map(
            any, zip(*ranks.gathered(known, "kinds of sums"), strict=True)
        )
        if self._raw and centred:
            self._subtract({n: total / self._count for n, total in self._total.items()})
        self._raw, own, count = not centred, self._count, share.count
        like = {name: widen(p.detach()) for name, p in parameters.items()}
        totals = self._total if in_parts else _of_ranks(ranks, self._total, like)
        spread = torch.tensor([self._spread.get(name, 0.0) for name in like], dtype=torch.float64)
        for k, (name, total) in enumerate(totals.items() if centred and own else ()):
            gap = (self._total[name] / own - total / count).square_()
            spread[k] += own * float(gap.sum())
            if squared:
                self._squares[name] = self._squares[name].add(gap, alpha=own)
        none = next(iter(like.values())).new_zeros(0)
        sums = ranks.sum(spread.to(none)).tolist()
        self._spread = dict(zip(like, sums, strict=True))
        if squared and not in_parts:
            self._squares = _of_ranks(ranks, self._squares, like)
        self._losses = [ranks.rows(torch.cat([none, *self._losses]), share)]
        columns = none.reshape(len(like), 0)
        for parts in (self._norms, self._gaps) if gapped else (self._norms,):
            whole = ranks.rows(torch.cat([columns, *parts], dim=1).T.contiguous(), share)
            parts[:] = [whole.T]
        self._total, self._count = totals, count
        self.cancellation = ranks.largest(self.cancellation)

    def moments(
        self,
        *,
        population: float,
        resolution: float,
        level: float,
        is_partition: bool = False,
        loss_population: float | None = None,
        sizes: dict[str, int] | None = None,
    ) -> GradientMoments:
        """The moments of all samples; call it once, last: it reuses the sums in place."""
        self._gather()
        count = self._count
        mean = {name: total.mul_(1 / count) for name, total in self._total.items()}
        if self._raw:
            self._subtract(mean)
        whole = None
        if sizes is not None:
            whole = Whole(sizes, dict(zip(mean, self._sq_norms(mean.values()), strict=True)))
        norms = torch.cat(self._norms, dim=1)  # [parameters, n]
        gaps = torch.cat(self._gaps, dim=1) if self._gaps else None
        return GradientMoments(
            mean=mean,
            centred_sq=self._spread,
            losses=torch.cat(self._losses),
            sq_norms=norms.sum(0),
            population=population,
            resolution=resolution,
            level=level,
            is_partition=is_partition,
            loss_population=loss_population,
            coordinate_sq=self._squares or None,
            per_parameter=PerParameter(
                dict(zip(mean, norms, strict=True)),
                gap_sq_norms={} if gaps is None else dict(zip(mean, gaps, strict=True)),
            ),
            gap_sq_norms=None if gaps is None else gaps.sum(0),
            whole=whole,
        )


def _of_ranks(ranks: Ranks, own: TensorDict, like: TensorDict) -> TensorDict:
    """The sums over all ranks, by name and in one exchange; a rank may have none."""
    whole = torch.cat([own.get(name, p.new_zeros(p.shape)).reshape(-1) for name, p in like.items()])
    return dict(zip(like, unflatten(ranks.sum(whole), [*like.values()]), strict=True))


def _add(sums: TensorDict, name: str, own: Tensor) -> None:
    known = sums.get(name)
    sums[name] = own.clone() if known is None else known.add_(own)
