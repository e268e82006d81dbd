"""B_simple, B_noise and their parts: dense oracles, enumeration, then analytic truths."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor, nn

import gradnoise as gn
from gradnoise.estimators.noise.errors import sampling_covariance, third_moment
from gradnoise.estimators.noise.noise_scale import measure_noise_scale
from gradnoise.estimators.noise.sign_probes import Probed
from gradnoise.moments.measure import stream, with_intervals
from gradnoise.operators.hessian import Hessian
from gradnoise.per_sample.choice import choose
from gradnoise.problem.options import Options
from gradnoise.problem.problem import Problem
from gradnoise.tensors.random import independent_signs
from tests import oracles
from tests.cases import CASES, CORE, Case, named
from tests.enumerated import noise_scale_of
from tests.optimizers import in_coordinates, trained

POPULATIONS = {"dataset": 6.0, "distribution": math.inf, 11: 11.0}


@pytest.mark.parametrize("steps", [0, 6])
@pytest.mark.parametrize("population", POPULATIONS)
@pytest.mark.parametrize("case", CORE, ids=named)
def test_every_part_agrees_with_dense_autograd(
    case: Case, population: str | int, steps: int
) -> None:
    model, loss_fn, batch = case.build()
    problem = Problem.open(model, loss_fn, batch, Options(population=population))
    found = noise_scale_of(problem, steps=steps)
    truth, size = oracles.dense(model, loss_fn, batch), POPULATIONS[population]
    signal = oracles.grad_sq_norm(truth.gradients, size)
    trace = oracles.trace_cov(truth.gradients)
    curvature = oracles.grad_curvature(truth, size)
    bend = oracles.trace_hessian_cov(truth, size)

    assert float(found.grad_sq_norm) == pytest.approx(signal, rel=1e-8)
    assert float(found.trace_cov) == pytest.approx(trace, rel=1e-8)
    assert float(found.grad_curvature) == pytest.approx(curvature, rel=1e-8)
    assert float(found.trace_hessian_cov) == pytest.approx(bend, rel=1e-8)
    if found.simple.is_resolved:
        assert float(found.simple) == pytest.approx(trace / signal, rel=1e-8)
    if found.hessian.is_resolved:
        assert float(found.hessian) == pytest.approx(bend / curvature, rel=1e-8)


@pytest.mark.parametrize("case", CORE, ids=named)
def test_on_the_whole_population_the_parts_are_the_plain_formulas(case: Case) -> None:
    model, loss_fn, batch = case.build()
    found = noise_scale_of(Problem.open(model, loss_fn, batch))
    truth = oracles.dense(model, loss_fn, batch)
    g, h, cov = truth.gradients.mean(0), truth.hessian, truth.covariance
    signal, curvature = float(g @ g), float(g @ h @ g)
    trace, bend = float(cov.trace()), float((h @ cov).trace())

    assert float(found.grad_curvature) == pytest.approx(curvature, rel=1e-8)
    assert float(found.trace_hessian_cov) == pytest.approx(bend, rel=1e-8)
    assert float(found.simple) == pytest.approx(trace / signal, rel=1e-8)
    if curvature > 0 and bend > 0:
        assert float(found.hessian) == pytest.approx(bend / curvature, rel=1e-8)
    else:
        assert found.hessian.status is gn.Status.NEGATIVE_CURVATURE


def test_the_core_cases_cover_a_resolved_noise_scale() -> None:
    resolved = [noise_scale_of(Problem.open(*case.build())).hessian.is_resolved for case in CORE]
    assert sum(resolved) >= 3


@pytest.mark.parametrize("count", [3, 4, 5])
def test_all_samples_of_a_small_population_average_to_its_truth(count: int) -> None:
    toy = gn.toy.LinearRegression(torch.tensor([3.0, 2, 1]), torch.tensor([1.0, -0.5, 0.3]), 0.7)
    inputs, targets = toy.sample(6, seed=1)
    population = noise_scale_of(Problem.open(toy.model(), toy.loss_fn, (inputs, targets)))
    parts = ("grad_sq_norm", "trace_cov", "grad_curvature", "trace_hessian_cov")
    found = {part: [] for part in parts}
    for chosen in itertools.combinations(range(6), count):
        batch = (inputs[list(chosen)], targets[list(chosen)])
        sample = noise_scale_of(
            Problem.open(toy.model(), toy.loss_fn, batch, Options(population=6))
        )
        for part in parts:
            found[part].append(float(getattr(sample, part)))
    for part in parts:
        truth = float(getattr(population, part))
        assert math.fsum(found[part]) / len(found[part]) == pytest.approx(truth, rel=1e-11), part


def test_all_sign_vectors_average_to_the_trace() -> None:
    model, loss_fn, batch = CORE[0].build()
    signs = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=6)), dtype=torch.float64)
    truth = oracles.dense(model, loss_fn, batch)
    expected = float((truth.hessian @ truth.covariance).trace())
    for steps in (0, 4):
        found = noise_scale_of(Problem.open(model, loss_fn, batch), signs, steps)
        assert float(found.trace_hessian_cov) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("count", [3, 4])
def test_so_few_samples_that_all_signs_would_fit_are_unbiased_too(count: int) -> None:
    """Over all samples of five; two samples hold no third moment."""
    toy, size, repeats = TOYS["T4"], 5, 15
    inputs, targets = toy.sample(size, seed=3)
    truth = oracles.dense(toy.model(), toy.loss_fn, (inputs, targets))
    mean, hessian = truth.gradients.mean(0), truth.hessian
    expected = torch.stack([(hessian @ truth.covariance).trace(), mean @ hessian @ mean])
    chosen = list(itertools.combinations(range(size), count))
    found = torch.zeros(len(chosen), repeats, 2, dtype=torch.float64)
    for row, kept in zip(found, chosen, strict=True):
        data = inputs[list(kept)], targets[list(kept)]
        for seed, pair in enumerate(row):
            scale = gn.noise_scale(
                toy.model(), toy.loss_fn, data, population=size, probes=16, seed=seed
            )
            pair[0], pair[1] = float(scale.trace_hessian_cov), float(scale.grad_curvature)
            assert not scale.trace_hessian_cov.is_exact
    errors = (found.var(1) / repeats).mean(0).div(len(chosen)).sqrt()
    scores = (found.mean((0, 1)) - expected) / errors
    assert bool((scores.abs() < 3).all()), scores


TOYS = {
    "T1": gn.toy.NoisyQuadratic(
        torch.diag(torch.tensor([3.0, 1.0, 0.2])), torch.tensor([1.0, 1, 2])
    ),
    "T4": gn.toy.LinearRegression(
        torch.tensor([3.0, 2.0, 1.0, 0.5]), torch.tensor([0.5, -0.5, 1.0, 1.0]), noise=0.5
    ),
}


@pytest.mark.parametrize("steps", [0, 2])
@pytest.mark.parametrize("name", TOYS)
def test_parts_are_unbiased_over_repeated_samples(name: str, steps: int) -> None:
    toy, replicates, n = TOYS[name], 100, 24
    parts = ("grad_sq_norm", "trace_cov", "grad_curvature", "trace_hessian_cov")
    found = {part: [] for part in parts}
    for seed in range(replicates):
        data = toy.sample(n, seed=seed)
        problem = Problem.open(toy.model(), toy.loss_fn, data, Options(population="distribution"))
        scale = noise_scale_of(problem, independent_signs(4, n, seed), steps)
        for part in parts:
            found[part].append(float(getattr(scale, part)))
    for part in parts:
        values, truth = torch.tensor(found[part]).double(), getattr(toy.truth(), part)
        error = (values.mean() - truth) / (values.std() / math.sqrt(replicates))
        assert abs(error) < 3, f"{part}: {error:.2f} standard errors from {truth}"


def test_intervals_cover_the_truth_about_as_often_as_they_say(
    capsys: pytest.CaptureFixture[str],
) -> None:
    toy, replicates, n = TOYS["T4"], 60, 256
    names = {"simple": "simple_noise_scale", "hessian": "noise_scale"}
    parts = ("grad_sq_norm", "trace_cov", "grad_curvature", "trace_hessian_cov", *names)
    hits = dict.fromkeys(parts, 0)
    for seed in range(replicates):
        data = toy.sample(n, seed=1000 + seed)
        problem = Problem.open(toy.model(), toy.loss_fn, data, Options(population="distribution"))
        with problem.guard():
            engine = choose(problem.objective, problem.largest_batch())
            moments = with_intervals(problem, engine, stream(problem, engine))
            signs = independent_signs(8, n, seed)
            scale = measure_noise_scale(Hessian.of(problem), engine, moments, signs)
        for part in parts:
            estimate, truth = getattr(scale, part), getattr(toy.truth(), names.get(part, part))
            hits[part] += estimate.low <= truth <= estimate.high
    with capsys.disabled():
        shown = ", ".join(f"{part} {hit / replicates:.3f}" for part, hit in hits.items())
        print(f"\ncoverage of 95 % intervals on T4, n = {n}, {replicates} replicates: {shown}")
    for part, hit in hits.items():  # 0.95 - 4 binomial standard errors
        assert hit / replicates > 0.95 - 4 * math.sqrt(0.95 * 0.05 / replicates), part


def network() -> tuple[nn.Module, nn.Module, tuple[Tensor, Tensor]]:
    """Large enough that no space of 20 directions holds its Hessian."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 16), nn.Tanh(), nn.Linear(16, 10)).double()
    return model, nn.CrossEntropyLoss(), (torch.randn(200, 20).double(), torch.randint(10, (200,)))


def test_a_population_as_large_as_the_sample_leaves_only_probe_error() -> None:
    model, loss_fn, batch = network()
    found = gn.noise_scale(model, loss_fn, batch, probes=8)
    assert found.grad_curvature.stderr == 0
    assert found.grad_sq_norm.is_exact
    assert found.simple.is_exact
    assert found.trace_hessian_cov.stderr > 0
    assert found.hessian.low < float(found.hessian) < found.hessian.high


def test_a_space_that_closes_leaves_nothing_to_probes() -> None:
    toy = TOYS["T4"]
    inputs, targets = toy.sample(64, seed=0)
    found = gn.noise_scale(toy.model(), toy.loss_fn, (inputs, targets))
    rows = inputs * (inputs @ toy.offset - targets)[:, None]
    hessian = inputs.T @ inputs / 64
    truth = float((hessian @ torch.cov(rows.T)).trace())
    assert float(found.trace_hessian_cov) == pytest.approx(truth, rel=1e-10)
    assert found.trace_hessian_cov.stderr < 1e-6 * truth


def test_probe_error_falls_with_the_number_of_probes() -> None:
    model, loss_fn, batch = network()
    few, many = (
        gn.noise_scale(model, loss_fn, batch, probes=probes, accuracy=0) for probes in (16, 256)
    )
    assert many.trace_hessian_cov.stderr < 0.5 * few.trace_hessian_cov.stderr


def test_probes_stop_when_they_are_sure_enough() -> None:
    model, loss_fn, batch = network()
    problem = Problem.open(model, loss_fn, batch)
    for accuracy, least, most in ((1.0, 8, 8), (0.02, 9, 399), (0.0, 400, 400)):
        ticks: list[int] = []
        with problem.guard():
            engine = choose(problem.objective, problem.largest_batch())
            signs = independent_signs(400, 200, 0)
            scale = measure_noise_scale(
                Hessian.of(problem),
                engine,
                stream(problem, engine),
                signs,
                accuracy=accuracy,
                tick=ticks.append,
            )
        assert least <= len(ticks) <= most
        reached = scale.trace_hessian_cov.stderr / float(scale.trace_hessian_cov)
        assert reached <= (accuracy or 0.02)
    with pytest.raises(gn.ArgumentError, match=r"`accuracy` is a relative error.*got -1"):
        gn.noise_scale(model, loss_fn, batch, accuracy=-1)


def test_what_the_space_knows_is_taken_out_of_the_probes() -> None:
    spectrum = torch.cat([torch.tensor([9.0, 6.0, 4.0, 3.0]), torch.full((56,), 0.05)])
    toy = gn.toy.LinearRegression(spectrum, torch.ones(60))
    inputs, targets = toy.sample(200, seed=0)
    problem = Problem.open(toy.model(), toy.loss_fn, (inputs, targets))
    rows = inputs * (inputs @ toy.offset - targets)[:, None]
    expected = float((inputs.T @ inputs / 200 @ torch.cov(rows.T)).trace())
    signs = independent_signs(64, 200, 0)
    plain, deflated = (noise_scale_of(problem, signs, steps).trace_hessian_cov for steps in (0, 12))
    assert deflated.stderr < 0.02 * plain.stderr
    for found in (plain, deflated):
        assert abs(float(found) - expected) < 4 * found.stderr


def test_at_the_minimum_the_noise_scales_have_only_a_lower_bound() -> None:
    centres = gn.toy.NoisyQuadratic(torch.eye(3), torch.zeros(3)).sample(64, seed=0)
    toy = gn.toy.NoisyQuadratic(torch.eye(3), centres.mean(0))
    found = gn.noise_scale(toy.model(), toy.loss_fn, centres)
    for scale in (found.simple, found.hessian):
        assert math.isnan(float(scale))
        assert scale.low > 1e6
        assert scale.high == math.inf
        assert scale.status is gn.Status.SIGNAL_BELOW_NOISE


def test_weak_signal_is_never_negative_capped_or_silent() -> None:
    toy = gn.toy.NoisyQuadratic(torch.eye(4), torch.full((4,), 1e-3))
    for seed in range(20):
        found = gn.noise_scale(
            toy.model(), toy.loss_fn, toy.sample(16, seed), population="distribution", probes=4
        )
        for scale in (found.simple, found.hessian):
            assert scale.low >= 0
            assert scale.is_resolved or (scale.high == math.inf and math.isnan(float(scale)))


@pytest.mark.parametrize("size", [1, 2, 5])
def test_without_any_signal_a_bowl_is_not_called_a_saddle(size: int) -> None:
    toy, said, covered = gn.toy.NoisyQuadratic(torch.eye(size), torch.zeros(size)), 0, 0
    for seed in range(50):
        found = gn.noise_scale(
            toy.model(), toy.loss_fn, toy.sample(64, seed), population="distribution", probes=8
        )
        said += found.hessian.status is gn.Status.NEGATIVE_CURVATURE
        covered += found.grad_sq_norm.low <= 0 <= found.grad_sq_norm.high
    assert said <= 4
    assert covered >= 43


def test_sampling_variances_are_those_of_the_influences() -> None:
    source = torch.Generator().manual_seed(0)
    own = torch.randn(400, generator=source, dtype=torch.float64)
    noise = 3 * torch.randn(8, 400, generator=source, dtype=torch.float64)
    curvature = own + torch.randn(400, generator=source, dtype=torch.float64)
    empty = torch.zeros(0)
    squares = torch.tensor([2.0, 4.0], dtype=torch.float64)
    probed = Probed(empty, empty, empty, own + noise, empty, squares, empty)
    trace, bend, both = sampling_covariance(probed, curvature, 0.01)
    assert trace == pytest.approx(0.01, rel=0.25)  # without the probes' part it would be 0.021
    assert bend == pytest.approx(0.01 * float(curvature.var()))
    assert both == pytest.approx(0.01, rel=0.25)
    weak = sampling_covariance(probed, 1e-6 * curvature, 0.01)
    assert weak[1] == pytest.approx(2 * 0.01**2 * 3.0)


def test_third_moments_of_probed_influences_hold_nothing_of_the_probes_noise() -> None:
    """All signs of a noise that grows with the influence itself: exact on the average."""
    source = torch.Generator().manual_seed(0)
    own, noise, other = torch.randn(3, 7, generator=source, dtype=torch.float64)
    noise = noise + 3 * own
    signs = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=4)), dtype=torch.float64)
    found = [third_moment(own + row[:, None] * noise, other) for row in signs]
    pair = torch.stack([own, other])
    expected = torch.einsum("an,bn,cn->abc", pair, pair, pair)
    torch.testing.assert_close(torch.stack(found).mean(0), expected, rtol=1e-11, atol=1e-11)
    few = third_moment(own.expand(2, -1), other)
    torch.testing.assert_close(few, expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("count", [2, 3])
def test_so_few_samples_that_all_signs_fit_are_enumerated(count: int) -> None:
    toy = TOYS["T4"]
    data = toy.sample(count, seed=5)
    truth = oracles.dense(toy.model(), toy.loss_fn, data)
    expected = float((truth.hessian @ truth.covariance).trace())
    found = gn.noise_scale(toy.model(), toy.loss_fn, data, probes=4)
    assert found.trace_hessian_cov.is_exact
    assert float(found.trace_hessian_cov) == pytest.approx(expected, rel=1e-12)


def test_few_probes_that_agree_by_chance_prove_nothing() -> None:
    toy = TOYS["T4"]
    for seed in range(30):
        problem = Problem.open(toy.model(), toy.loss_fn, toy.sample(3, 5))
        found = noise_scale_of(problem, independent_signs(2, 3, seed))
        assert not found.trace_hessian_cov.is_exact
        assert not found.hessian.is_exact


def test_two_samples_of_many_have_no_interval() -> None:
    toy = TOYS["T4"]
    found = gn.noise_scale(
        toy.model(), toy.loss_fn, toy.sample(2, seed=1), population="distribution"
    )
    for part in ("trace_cov", "grad_sq_norm", "grad_curvature", "trace_hessian_cov"):
        assert getattr(found, part).status is gn.Status.NO_INTERVAL, part


@pytest.mark.parametrize("scale", [1e-30, 1e-10, 1e10, 1e30])
def test_noise_scales_do_not_depend_on_the_units_of_the_loss(scale: float) -> None:
    toy = TOYS["T4"]
    plain, scaled = (
        gn.noise_scale(
            toy.model(),
            lambda model, batch, s=s: s * toy.loss_fn(model, batch),
            toy.sample(64, seed=0),
            population=400,
        )
        for s in (1.0, scale)
    )
    for part in ("simple", "hessian"):
        one, other = getattr(plain, part), getattr(scaled, part)
        assert (other.low, other.high) == pytest.approx((one.low, one.high), rel=1e-6)


def test_negative_curvature_along_the_gradient_is_said() -> None:
    toy = gn.toy.NoisyQuadratic(torch.diag(torch.tensor([-2.0, 1.0])), torch.tensor([1.0, 0.0]))
    found = gn.noise_scale(toy.model(), toy.loss_fn, toy.sample(256, seed=0))
    assert float(found.grad_curvature) < 0
    assert found.hessian.status is gn.Status.NEGATIVE_CURVATURE
    assert "downwards" in found.hessian.status.remedy


def test_the_same_seed_gives_the_same_numbers() -> None:
    toy = TOYS["T4"]
    first, second = (
        gn.noise_scale(toy.model(), toy.loss_fn, toy.sample(64, seed=0), seed=7, max_samples=32)
        for _ in range(2)
    )
    assert first == second


def test_fewer_than_two_probes_are_refused() -> None:
    with pytest.raises(gn.ArgumentError, match=r"`probes` must be a whole number from 2 on; got 1"):
        gn.noise_scale(nn.Linear(1, 1), nn.MSELoss(), (torch.ones(4, 1),) * 2, probes=1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_part_of_the_population_is_measured_in_narrow_dtypes_too(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model, x = nn.Linear(3, 2), torch.randn(64, 3)
    data = (x, (x[:, 0] + torch.randn(64) > 0).long())
    wide, narrow = (
        gn.profile(
            model.to(kind), nn.CrossEntropyLoss(), (data[0].to(kind), data[1]), population=1000
        )
        for kind in (torch.float64, dtype)
    )
    rel = 1e-3 if dtype is torch.float32 else 0.2
    for part in ("grad_sq_norm", "trace_cov", "grad_curvature", "noise_scale", "sharpness"):
        one, other = wide.estimates[part], narrow.estimates[part]
        assert (other.low, other.high) == pytest.approx((one.low, one.high), rel=rel), part


def test_a_flat_loss_has_no_curvature_to_doubt() -> None:
    model = nn.Linear(3, 1).double()
    profile = gn.profile(model, lambda m, x: m(x)[:, 0], torch.randn(40, 3).double(), probes=4)
    assert float(profile.trace_hessian_cov) == 0
    assert profile.trace_hessian_cov.is_exact
    assert profile.curvature_noise_scale.status is gn.Status.SIGNAL_BELOW_NOISE
    assert "not positive, so that it sets no limit" in str(profile)


@pytest.mark.parametrize("population", ["dataset", "distribution"])
def test_gradients_that_are_all_zero_get_a_report(population: str) -> None:
    model, x = nn.Linear(3, 1).double(), torch.randn(40, 3).double()
    data = (x, model(x).detach())
    profile = gn.profile(model, nn.MSELoss(), data, population=population, probes=4)
    assert float(profile.trace_cov) == 0
    assert "gradient noise trΣ" in str(profile)
    assert math.isnan(float(profile.noise_scale))


def test_probes_that_agree_but_for_rounding_prove_nothing() -> None:
    source = torch.zeros(40, 6, dtype=torch.float64)
    source[:, 0] = 1
    source[0, 1:3] += torch.tensor([1.3, 0.3])
    source[1, 1:3] -= torch.tensor([1.3, 0.3])

    class Bowl(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.zeros(6, dtype=torch.float64))

    def loss_fn(model: nn.Module, g: Tensor) -> Tensor:
        return g @ model.w + 0.5 * model.w.square().sum()

    for seed in range(40):
        found = gn.noise_scale(Bowl(), loss_fn, source, probes=2, seed=seed).trace_hessian_cov
        assert found.high > found.low or found.status is gn.Status.NO_INTERVAL


def test_a_squared_norm_that_comes_out_negative_is_no_signal_and_bounds_the_ratio() -> None:
    source = torch.Generator().manual_seed(0)
    rows = torch.randn(100, 20, generator=source, dtype=torch.float64)
    rows = rows - rows.mean(0) + 1e-3
    bounds = []
    for level in (0.8, 0.95, 0.999):
        found = gn.noise_scale_from_gradients(rows, level=level)
        assert float(found.grad_sq_norm) < 0
        assert found.grad_sq_norm.status is gn.Status.SIGNAL_BELOW_NOISE
        assert found.simple_noise_scale.high == math.inf
        bounds.append(found.simple_noise_scale.low)
    assert bounds[0] > bounds[1] > bounds[2] > 0


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("seed", [0, 1, 4, 9])
def test_samples_that_all_agree_have_a_noise_scale_of_exactly_zero(
    dtype: torch.dtype, seed: int
) -> None:
    """One sample 64 times over: GᵀHG is what it is, and every batch is the whole."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 1)).to(dtype)
    x, y = (torch.randn(1, size).to(dtype).expand(64, size) for size in (4, 1))
    p = gn.profile(model, nn.MSELoss(), (x, 10 + y), batch_size=8)
    for found in (p.noise_scale, p.trace_hessian_cov):
        assert float(found) == 0
        assert found.is_exact
    assert p.grad_curvature.is_exact
    assert {p.regime(size) for size in (1, 8, 64)} == {"curvature-dominated"}
    step = float(p.grad_sq_norm) / float(p.grad_curvature)
    for size in (1, 64):
        assert float(p.greedy_lr(size)) == pytest.approx(step, rel=1e-6)
        assert float(p.max_lr(size)) == pytest.approx(float(p.stable_lr()))
    assert p.recommend().confidence == "good"


def test_a_part_of_samples_that_agree_says_nothing_of_the_others() -> None:
    model, x = nn.Linear(4, 1, bias=False).double(), torch.ones(16, 4).double()
    p = gn.profile(model, nn.MSELoss(), (x, x[:, :1]), population="distribution")
    assert p.noise_scale.status is gn.Status.NO_INTERVAL
    assert p.regime(8) == "unresolved"


EXTRA = ("tied weights", "parameters on the root", "fused attention", "control flow on the data")


CHOSEN = (*CORE, *(case for case in CASES if case.name in EXTRA))


QUICK = [case for case in CHOSEN if case.name != "embedding and LSTM"]


PAIRS = (
    *((case, name) for case in CHOSEN for name in ("Adam", "AdamW in groups")),
    *((case, name) for case in QUICK for name in ("SGD", "RMSprop")),
    *((CORE[0], name) for name in ("amsgrad", "AdamW", "NAdam")),
)


@pytest.mark.parametrize(
    ("case", "name"), PAIRS, ids=[f"{named(case)}-{name}" for case, name in PAIRS]
)
def test_noise_scales_are_those_of_dense_gradients_and_hessians(case: Case, name: str) -> None:
    model, loss_fn, batch, optimizer = trained(case, name)
    size = 6 if case is CORE[1] else 11
    problem = Problem.open(model, loss_fn, batch, Options(population=size))
    found = noise_scale_of(
        problem.in_metric(Options(optimizer=optimizer, metric="optimizer")), steps=6
    )
    truth = in_coordinates(model, oracles.dense(model, loss_fn, batch), optimizer)
    parts = {
        "grad_sq_norm": oracles.grad_sq_norm(truth.gradients, size),
        "trace_cov": oracles.trace_cov(truth.gradients),
        "grad_curvature": oracles.grad_curvature(truth, size),
        "trace_hessian_cov": oracles.trace_hessian_cov(truth, size),
    }
    for part, value in parts.items():
        assert float(getattr(found, part)) == pytest.approx(value, rel=1e-8), part
