"""The pair to try, from numbers: within the limits, and with the noise of the steps in use."""

import itertools

import pytest

from gradnoise.learning_rate.setting import Setting
from gradnoise.learning_rate.suggestion import ceiling, lowest_limit, round_batch, suggest
from gradnoise.statistics.estimate import Status
from tests.landscapes import INF, UNKNOWN, estimate, landscape


def pair(scale, batch_size=None, lr=None, largest=None, population=INF, curvature=2.0, **setting):
    bowl = landscape(estimate(scale), curvature=estimate(curvature), population=population)
    found = suggest(bowl, Setting(batch_size, lr, **setting), scale, largest or scale)
    return found.batch_size, found.lr


def test_every_rate_is_within_the_limits_of_its_batch():
    scales, batches, rates = (1.0, 9.0, 500.0), (None, 1, 7, 32, 5000), (None, 1e-3, 0.1, 0.4, 9.0)
    for scale, batch, lr, curvature, rescales in itertools.product(
        scales, batches, rates, (0.0, 2.0, 900.0), (None, "AdamW")
    ):
        bowl = landscape(estimate(scale), curvature=estimate(curvature), population=6000.0)
        found = suggest(bowl, Setting(batch, lr, rescales=rescales), scale, scale)
        limit = min(0.5, float(bowl.mean_square_lr(found.batch_size)))
        assert found.lr is None or found.lr <= limit
        if found.batch_size != batch:
            assert found.lr <= limit / 2


def test_a_rate_in_use_is_carried_while_half_of_the_limit_allows_it():
    assert pair(128.0, 32, 0.1) == (64, 0.2)  # half of the limit is 0.242 at 64, 0.246 at 128
    assert pair(128.0, 32, 0.05) == (128, 0.2)
    assert pair(128.0, 24, 0.05) == (96, 0.2)  # doublings of the batch in use


def test_second_moments_follow_the_batch_and_so_does_their_limit():
    assert pair(128.0, 32, 0.1, rescales="Adam") == (64, pytest.approx(0.1 * 2**0.5))
    assert pair(128.0, 32, 0.05, rescales="Adam") == (128, 0.1)  # half of the limit is 0.123


def test_the_batch_does_not_grow_beyond_the_noise_scale_or_the_data():
    assert pair(44.0, 32, 0.001) == (32, 0.001)
    assert pair(46.0, 32, 0.001) == (64, 0.002)  # nearer to 64
    assert pair(1000.0, 32, 0.001, population=100.0) == (64, 0.002)


@pytest.mark.parametrize(("lr", "told"), [(0.3, 0.3), (0.47, 0.47), (0.48, None)])
def test_without_room_the_setting_is_kept(lr, told):
    assert pair(128.0, 32, lr) == (32, told)  # the limit is (2/4)/(1 + 2/32) = 0.4706


def test_from_beyond_the_noise_scale_a_smaller_batch_is_named():
    assert pair(15.0, 60, 0.1) == (16, pytest.approx(0.1 * (1 + 15 / 60) / (1 + 15 / 16)))
    assert pair(15.0, 60, 0.1, largest=80.0) == (60, 0.1)  # between the two noise scales
    assert pair(16.0, 512, 9.0)[1] == 0.25 / (1 + 2 / 16)


def test_without_a_rate_in_use_the_larger_noise_scale_is_in_the_rule():
    assert pair(128.0, curvature=0.0) == (128, 0.25)
    assert pair(128.0, 32, curvature=0.0) == (128, 0.25)
    assert pair(2.0, largest=30.0, curvature=0.0) == (2, 0.5 / 16)


def test_a_limit_that_is_not_known_leaves_the_other():
    bowl = landscape(estimate(96.0), curvature=UNKNOWN)
    assert lowest_limit(bowl, 32) == 0.5
    assert ceiling(bowl, Setting(), 32) == 0.25
    rough = landscape(estimate(96.0), estimate(4.0, status=Status.NOT_CONVERGED))
    assert lowest_limit(rough, 32) == pytest.approx(0.5 / (1 + 2 / 32))


def test_noise_that_would_double_the_loss_lowers_the_ceiling():
    noisy = {"loss": estimate(1.0), "trace_cov": estimate(8.0)}
    bowl = landscape(estimate(96.0), curvature=estimate(0.0), **noisy)
    assert ceiling(bowl, Setting(), 4) == 0.2  # half of 1/(2 + 8/16)
    assert lowest_limit(bowl, 4) == 0.5
    assert suggest(bowl, Setting(4, 0.12), 96.0, 96.0).limited  # 0.24 is beyond 0.222 at B = 8
    assert suggest(bowl, Setting(4, 0.01), 96.0, 96.0).batch_size == 64


def test_the_ceiling_falls_with_the_second_moments():
    bowl = landscape(estimate(96.0), curvature=estimate(0.0))
    adam = Setting(16, 0.1, rescales="Adam")
    assert [ceiling(bowl, adam, size) for size in (4, 16, 64)] == [0.25, 0.25, 0.125]


@pytest.mark.parametrize(("scale", "batch"), [(0.1, 1), (90.0, 64), (91.0, 128), (1000.0, 300)])
def test_batches_are_powers_of_two_within_the_data(scale, batch):
    assert round_batch(scale, 300.0) == batch
