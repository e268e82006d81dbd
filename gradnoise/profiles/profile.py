"""`gn.profile`: all measurements in one call, and what it returns."""

from __future__ import annotations

import html
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import torch
from torch import nn

from ..errors import check_whole
from ..estimators.noise.draws import draw_share
from ..estimators.noise.noise_scale import ACCURACY, PROBES
from ..learning_rate.advice import Recommendation, Tried
from ..linalg.operator import MEMORY_BUDGET
from ..measurement.opened import Opened
from ..moments.layer import by_group
from ..problem.gathering import by_layers_or_whole
from ..problem.labels import labels_per_sample
from ..problem.losses.loss_fn import LossFn
from ..problem.optimizer_settings import read_optimizer
from ..problem.options import AUTO, Options
from ..problem.problem import Problem
from ..problem.samples import MICRO_BATCH
from ..problem.state.sharded import own_class
from ..problem.state.wrappers import bare_model
from ..show.axes import plotted
from ..show.progress import progress_bar
from . import file
from .budget import budget_note, within_budget
from .comparison import Comparison, compare
from .cost import Meter
from .curvature import Effort, find_curvature
from .environment import environment, now
from .flat import rows, values
from .page import write_page
from .picture import regime_map
from .results import Results
from .spectra import Spectrum, find_spectra
from .surrogates import surrogate_note
from .text import write
from .units import objective_in_words, randomness_in_words, sum_note, unit_notes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Profile(Results):
    """The gradient noise and the curvature of one model at one point of its training.

    `print` it for a report. Every quantity is an attribute with an interval, an `Estimate`:

    | attribute | formula | unit |
    |---|---|---|
    | loss | L, the mean of ℓ_i | loss |
    | grad_sq_norm | |G|², G the mean gradient of the population | loss²/parameter² |
    | trace_cov | trΣ, Σ = Cov(g_i) with 1/(n - 1) | loss²/parameter² |
    | simple_noise_scale | B_simple = trΣ/|G|² | samples |
    | grad_curvature | GᵀHG | loss³/parameter⁴ |
    | trace_hessian_cov | tr(HΣ) | loss³/parameter⁴ |
    | noise_scale | B_noise = tr(HΣ)/GᵀHG | samples |
    | sharpness | λ, the largest eigenvalue of H | loss/parameter² |
    | curvature_noise_scale | B_curv = Var_i(vᵀH_iv)/λ², Hv = λv | samples |

    From them follow learning rates, in parameter²/loss: `stable_lr`, `max_lr`, `greedy_lr`,
    `mean_square_lr`. They hold at this point of training; beyond them a run may move to where the
    loss is flatter. Sources: McCandlish et al. 2018 (arXiv:1812.06162) for both noise scales;
    Smith, Elsen and De 2020 (arXiv:2006.15081) for the regimes; Mulayoff and Michaeli 2024
    (arXiv:2306.07850) for the mean-square limit. docs/glossary.md has all terms.

    Args:
        model: class name.
        parameters: P, the number of trainable parameters.
        mode: "train", "eval" or "mixed": how the modules were set.
        dtype, device: of the parameters.
        samples, population: n and N (inf for a distribution).
        level: coverage of the intervals.
        seed: seed of the samples and random directions.
        engine, engine_reason: how per-sample gradients were computed, and why.
        estimates: the quantities above by name.
        layers: |G|², trΣ and shares of the curvature, module by module; see `Layer`.
        optimizer: settings of the given optimizer, or None.
        metric: "euclidean", or "optimizer": estimates are of P^-½g_i and P^-½HP^-½ with P of the
            optimizer's state, and learning rates are those of the optimizer.
        batch_size: B in training, as given or of the DataLoader; or None.
        matvecs: Hessian-vector products spent on λ.
        warnings: notes for the reader.
        versions: of gradnoise and torch.
        groups: as `layers` for the optimizer's parameter groups "group 0", "group 1", ...; empty
            without an optimizer.
        curvature_spread: covariance of the samples' curvature in the sharpest directions, or None.
        unit, group_size: what training draws, "sample" or "group", and the samples in it. Estimates
            are in samples in both cases; those of groups depend on their size.
        objective: what L is the mean of, in words.
        randomness: what the loss draws, and how much of trΣ that makes, in words.
        labels_per_sample: labels (tokens, pixels) that count, on average; None where a sample has
            one, or where the loss function does not tell.
        cost: what the measurement cost; see `Cost`.
        advised: what short training from here has tried, or None; see `with_advice`.
        spectra: spectral densities "H" and "Σ", where they were asked for; see `Spectrum`.
        date: when it was measured, ISO 8601 in UTC; empty in files of older versions.
        environment: "python", "platform", "threads" of torch and "device"; "command" where one
            measured it; empty likewise.

    Example:
        >>> from gradnoise.toy import NoisyQuadratic
        >>> toy = NoisyQuadratic(torch.diag(torch.tensor([4.0, 1.0])), torch.ones(2))
        >>> p = profile(toy.model(), toy.loss_fn, toy.sample(256, seed=0))
        >>> print(p.sharpness)  # the Hessian is diag(4, 1)
        4.00 [4.00, 4.00]
        >>> p.regime(256)  # B_noise is 0.83 samples
        'curvature-dominated'
    """

    @overload
    def plot(self, path: str | Path | None = None, *, axes: None = None) -> Figure: ...
    @overload
    def plot(self, path: str | Path | None = None, *, axes: Axes) -> Axes: ...
    def plot(self, path: str | Path | None = None, *, axes: Axes | None = None) -> Figure | Axes:
        """The regime map, learning rate ε against batch size B; `gn.pictures` has others.

        It shows the full-batch limit 2/λ, the noise-scale rule, the mean-square limit, B_noise, the
        setting in use and the suggestion.

        Args:
            path: save it there as well; the suffix gives the format.
            axes: draw into these matplotlib Axes.

        Returns:
            The new matplotlib Figure; or `axes` where they were given.

        Raises:
            NotMeasuredError: curvature was not measured, or is not positive.
            ArgumentError: the file cannot be written, or not in that format.
            ImportError: matplotlib is not installed.
        """
        return plotted(lambda: regime_map(self, axes=axes), path, axes)

    def to_html(self, path: str | Path) -> None:
        """Write the report as one page of HTML that needs no network, about 1 MB.

        Verdict, regime map, notes, limits over batch size, trade-off between steps and samples,
        layers, spectra where they were measured, and how it was measured; light and dark. The
        numbers are inside: `Profile.load` reads them from the page.

        Raises:
            ProfileFileError: the file cannot be written.
            ImportError: altair, vl-convert-python or jinja2 is not installed.
        """
        write_page(self, self.to_dict(), path)

    def compare(
        self, other: Profile, level: float | None = None, *, independent: bool = False
    ) -> Comparison:
        """Whether anything changed from this profile to another one, beyond the errors of both.

        Args:
            other: of another checkpoint, optimizer, batch size or model.
            level: coverage of the intervals of the changes; the higher one of both by default.
            independent: whether the two were measured on different samples, so that their errors
                are independent. Errors that are not are taken to be related in the worst way; a
                profile does not say which samples it has seen.

        Returns:
            Comparison.

        Raises:
            ArgumentError: not a profile, or no level.
        """
        return compare(self, other, level=level, independent=independent)

    def rows(self) -> list[dict[str, Any]]:
        """One dict for each quantity, limit and layer: `pandas.DataFrame(p.rows())` is tidy.

        Columns: model, date, scope ("model", "layer" or "group"), name (of the layer or group),
        quantity, value, low, high, level, stderr, status, samples, unit, batch_size (of a limit of
        the learning rate, which is about it), metric. Where nothing is known the value is None;
        infinities and nan are numbers.
        """
        return rows(self)

    def values(self) -> dict[str, float]:
        """Finite numbers by key, for W&B's `log` or TensorBoard's `add_scalar`.

        Keys are those of `NoiseMonitor.values` where the quantity is the same:
        "gradnoise/noise_scale" is B_simple. "gradnoise/hessian_noise_scale" is B_noise. Other
        quantities have their own names. Each has "..._low" and "..._high", the ends of its
        interval. Limits of the learning rate are those at the batch size in use.
        """
        return values(self)

    def to_dict(self) -> dict[str, Any]:
        """Everything as built-in values that JSON can hold; infinities and nan as strings.

        With a section "verdict": what follows from the numbers, computed when it is written.
        """
        return file.to_dict(self)

    def save(self, path: str | Path) -> None:
        """Write `to_dict` as JSON; an error leaves an existing file as it was.

        Raises:
            ProfileFileError: the file cannot be written.
        """
        file.save(self.to_dict(), path)

    @classmethod
    def json_schema(cls) -> dict[str, Any]:
        """The JSON Schema (draft 2020-12) of the files that `save` writes, with all units."""
        return file.json_schema()

    @classmethod
    def load(cls, path: str | Path) -> Profile:
        """Read a saved profile.

        Raises:
            ProfileFileError: no such file, damaged, numbers that cannot be, or not a profile that
                this version reads.
        """
        return file.load(cls, path)  # type: ignore[no-any-return]

    def report(self, *, full: bool = False) -> str:
        """The report as plain text: what to do, the numbers behind it, caveats, cost.

        A line has as many characters as the terminal, at most 100; where the output is no terminal
        as COLUMNS says, or 80. It is ASCII where the output has no Greek letters. `print(p)` prints
        the short form.

        Args:
            full: with every number, the limits over batch size, and the layers.
        """
        return write(self, full=full)

    def with_advice(self, advice: Tried) -> Profile:
        """This profile with what `gn.advise` has found from the same point of training.

        Its report, its picture and `recommend` then name the pair that was tried. Where the trials
        found none, their reasons become `warnings`.

        Args:
            advice: an `Advice` about the same model and optimizer.

        Example:
            p = gn.profile(model, loss_fn, loader, optimizer=optimizer)
            print(p.with_advice(gn.advise(model, loss_fn, loader, optimizer)))
        """
        if advice.lr is None:
            return replace(self, warnings=(*self.warnings, *advice.reasons))
        own = self.snapshot()
        tried = Recommendation(
            advice.batch_size, advice.lr, advice.reasons, advice.confidence, own.samples,
            own.critical,
        )  # fmt: skip
        return replace(self, advised=tried)

    def __str__(self) -> str:
        return self.report()

    def __repr__(self) -> str:
        known = ("simple_noise_scale", "noise_scale", "sharpness")
        found = [f"{n}={self.estimates[n]}" for n in known if n in self.estimates]
        return f"<Profile of {self.model}, {self.samples} samples: {', '.join(found)}>"

    def _repr_html_(self) -> str:
        """The report in a notebook."""
        return f"<pre>{html.escape(self.report())}</pre>"


def profile(
    model: nn.Module,
    loss_fn: LossFn | nn.Module,
    data: Any,
    *,
    optimizer: torch.optim.Optimizer | None = None,
    metric: str = "auto",
    batch_size: int | None = None,
    max_samples: int | None = 4096,
    population: str | int = "dataset",
    engine: str = "auto",
    level: float = 0.95,
    seed: int = 0,
    probes: int = PROBES,
    accuracy: float = ACCURACY,
    budget: float | None = None,
    tol: float | None = None,
    micro_batch: int = MICRO_BATCH,
    unit: str = "auto",
    group_size: int | None = None,
    process_group: Any = None,
    gather: str = AUTO,
    memory_budget: int = MEMORY_BUDGET,
    spectra: bool = False,
    progress: bool = False,
) -> Profile:
    """Measure the gradient noise and the curvature of a model at its present parameters.

    Formulas, units and sources of every quantity: `Profile`. The cost is about 25 to 100 forward
    and backward passes over 1024 samples where they are the population, and twice as many where
    they are a part of it; more samples cost fewer passes. All numbers change during training:
    measure at several points of it.

    Args:
        model: any `nn.Module`; it is left unchanged. Its trainable parameters are measured.
        loss_fn: `loss_fn(model, batch)` with one loss per sample, shape (n,), or a torch
            criterion for batches (inputs, targets).
        data: a DataLoader, a Dataset, a list of batches or of single samples, or one batch. Samples
            may differ in size (graphs, detection targets, sequences): `loss_fn` gets them as the
            collate function of the loader puts them together.
        optimizer: the one in use; the report reads its learning rate and momentum.
        metric: "euclidean": learning rates are those of plain SGD. "optimizer": everything in the
            coordinates P^½w in which a step of the optimizer is a step of plain SGD, with P of its
            state as in `Preconditioned`; learning rates are then those of the optimizer (Adam,
            AdamW, NAdam, RMSprop, Adagrad, Adafactor), which must have taken steps. "auto":
            "optimizer" for these once they have taken steps, else "euclidean".
        batch_size: B in training; by default that of a DataLoader.
        max_samples: n at most; None measures all.
        population: "dataset", "distribution" or N: what the intervals are about.
        engine: "auto", or by name: "hooks", "functional", "backpack" or "loop".
        level: coverage of the intervals.
        seed: seed of the samples and random directions; the same seed gives the same numbers.
        probes: random directions for tr(HΣ), at most, where there are fewer than 512 samples.
        accuracy: half the interval of B_noise, relative, that is enough. Random vectors for tr(HΣ)
            are drawn until then, 24 at least (8 of fewer than 512 samples). Where a part of the
            population is measured the interval may stay wider: only more samples shorten it.
        budget: plain passes over all the samples (at most `max_samples`) that may be spent, about;
            where a profile of all would cost more, fewer are measured, 512 at least where there are
            as many. `p.cost.passes` is then over these fewer. See `gn.estimate_cost`.
        tol: relative residual at which λ is accepted; by default 1e-3, and 1e-2 where there are
            512 samples and more: the error of λ is about the square of that.
        micro_batch: samples evaluated at once; lower it when memory is short.
        unit: "auto": single samples where the loss of one does not depend on others, else groups
            of samples, as with batch normalisation in training mode; "sample" or "group" insists.
            Noise scales are in samples in both cases; those of groups depend on their size.
        group_size: samples of a group; by default `batch_size`, that of a DataLoader or of a list
            of batches, or 32 at most.
        process_group, gather: as for `gradient_moments`: the ranks of a group measure together, and
            of a model that they share, all is gathered on each or one layer at a time. By layers
            curvature is from differences of gradients.
        memory_budget: bytes of graphs that are kept between Hessian products (more are built for
            each, which takes about as long again), and of the basis of λ. 1 GiB by default; a basis
            of nine vectors is taken in any case.
        spectra: measure the spectral densities of H and Σ as well, for `to_html`: 40 products with
            each, which cost more than all the rest.
        progress: show a progress bar on stderr.

    Returns:
        Profile.

    Raises:
        GradNoiseError: what was got, what was expected and what to do. Among them ArgumentError
            (an option), DataError, LossError, ModelError and CoupledSamplesError (what cannot be
            measured). Missing second derivatives are no error: `warnings` says so.

    Example:
        >>> from gradnoise.toy import NoisyQuadratic
        >>> toy = NoisyQuadratic(torch.diag(torch.tensor([4.0, 1.0])), torch.ones(2))
        >>> p = profile(toy.model(), toy.loss_fn, toy.sample(256, seed=0))
        >>> round(float(p.stable_lr()), 3)  # 2/λ = 2/4
        0.5
    """
    check_whole("batch_size", 1 if batch_size is None else batch_size, 1)
    meter, effort = Meter(), Effort(probes, accuracy, tol, memory_budget, spectra)
    if group_size is None and unit != "sample":
        group_size = batch_size
    options = Options(
        optimizer=optimizer, metric=metric, engine=engine, population=population,
        max_samples=max_samples, level=level, seed=seed, micro_batch=micro_batch,
        unit=unit, group_size=group_size, process_group=process_group, gather=gather,
    )  # fmt: skip

    def found(own: Options) -> Profile:
        opened = Opened.open(model, loss_fn, data, own)
        within = within_budget(opened, budget, accuracy)
        note = budget_note(opened, within)
        return find_profile(
            within, effort, meter, batch_size=batch_size, note=note, progress=progress
        )

    return by_layers_or_whole(found, options)


def find_profile(
    opened: Opened,
    effort: Effort,
    meter: Meter,
    *,
    batch_size: int | None = None,
    note: str = "",
    progress: bool = False,
) -> Profile:
    """The profile of a model that is open; see `profile`."""
    check_whole("batch_size", 1 if batch_size is None else batch_size, 1)
    options, optimizer = opened.options, opened.options.optimizer
    problem = opened.problem
    settings = read_optimizer(optimizer, problem.metric)
    with problem.guard(), progress_bar(progress) as stage:
        tick = stage("per-sample gradients", problem.samples.count)
        moments = opened.moments(tick=tick)
        curvature = find_curvature(opened, moments, stage, effort)
        drawn = draw_share(problem, moments) if problem.unit.is_replayed else None
        spectra: dict[str, Spectrum] = {}
        no_spectra = ""
        if effort.spectra:
            spectra, no_spectra = find_spectra(
                opened, stage, curvature=bool(curvature.estimates),
                memory_budget=effort.memory_budget,
            )  # fmt: skip
        surrogate = surrogate_note(problem)
        labels = labels_per_sample(problem)
    chosen, model = opened.engine, bare_model(problem.objective.model)
    groups = {}
    if optimizer is not None:
        own = (group["params"] for group in problem.objective.groups(optimizer))
        groups = by_group(problem.objective.registered, own)
    unit, samples = problem.unit, problem.samples
    population = moments.population if samples.data_size is None else samples.data_size
    told = opened.in_samples(moments)
    size, too_large = _capped(int(batch_size) if batch_size else opened.batch_size, population)
    notes = (
        note,
        *unit_notes(unit),
        *sum_note(problem.objective.criterion),
        *samples.notes,
        samples.population_note,
        problem.note,
        problem.objective.note,
        too_large,
        f"engine: {chosen.reason}" if chosen.failures else "",
        *curvature.notes,
        no_spectra,
        surrogate,
        _precision_note(problem),
        *(settings.notes if settings else ()),
    )
    return Profile(
        model=own_class(model).__name__,
        parameters=problem.objective.size,
        mode=_mode(model),
        dtype=_dtypes(problem),
        device=str(problem.objective.device),
        samples=unit.size * moments.count,
        population=population,
        level=float(options.level),
        seed=int(options.seed),
        engine=chosen.name,
        engine_reason=chosen.reason,
        estimates={
            "loss": told.loss,
            "grad_sq_norm": told.grad_sq_norm,
            "trace_cov": told.trace_cov,
            "simple_noise_scale": told.simple_noise_scale,
            **curvature.in_samples(unit.size),
        },
        layers=curvature.shared(told.layers),
        groups=curvature.shared(told.by_groups(groups)),
        curvature_spread=curvature.spread and curvature.spread.scaled(unit.size),
        unit=unit.kind,
        group_size=unit.size,
        objective=objective_in_words(unit),
        randomness=randomness_in_words(unit, drawn),
        labels_per_sample=labels,
        optimizer=settings,
        metric=problem.metric,
        batch_size=size,
        matvecs=curvature.matvecs,
        warnings=tuple(filter(None, notes)),
        versions=file.versions(),
        cost=meter.cost(problem, curvature.noise_work),
        spectra=spectra,
        date=now(),
        environment=environment(problem.objective.device),
    )


def _mode(model: nn.Module) -> str:
    modes = {module.training for module in model.modules()}
    return "mixed" if len(modes) > 1 else "train" if modes.pop() else "eval"


def _dtypes(problem: Problem) -> str:
    dtypes = {str(p.dtype).removeprefix("torch.") for p in problem.objective.parameters.values()}
    return "/".join(sorted(dtypes))


def _precision_note(problem: Problem) -> str:
    dtypes = {p.dtype for p in problem.objective.parameters.values()}
    if dtypes.isdisjoint((torch.float16, torch.bfloat16)):
        return ""
    return (
        f"gradients and curvature were computed in {_dtypes(problem)}, with 2 to 3 significant "
        f"digits; measure a float32 copy of the model for more"
    )


def _capped(size: int | None, population: float) -> tuple[int | None, str]:
    """B in use, at most N, and a note where it would be more."""
    if size is None or size <= population:
        return size, ""
    whole = int(population)
    return whole, (
        f"batch size {size} is larger than the data: this report is about batches of all {whole} "
        f"samples"
    )
