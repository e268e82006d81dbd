"""Every error of the library is a GradNoiseError, and also what Python would call it."""

import inspect

import pytest

import gradnoise as gn
from gradnoise import errors


@pytest.mark.parametrize("name", errors.__all__)
def test_every_error_is_caught_as_a_gradnoise_error(name):
    with pytest.raises(gn.GradNoiseError, match="what was got"):
        raise getattr(errors, name)("what was got")


@pytest.mark.parametrize(
    ("error", "also"),
    [
        (gn.ArgumentError, ValueError),
        (gn.NotMeasuredError, AttributeError),
        (gn.RandomLossError, gn.LossError),
        (gn.CoupledSamplesError, gn.LossError),
    ],
)
def test_an_error_is_also_the_more_general_one(error, also):
    assert issubclass(error, also)


def test_no_error_is_left_out_of_the_list():
    own = {name for name, item in vars(errors).items() if inspect.isclass(item)}

    assert own == set(errors.__all__)


@pytest.mark.parametrize("name", errors.__all__)
def test_every_error_says_when_it_is_raised(name):
    assert vars(errors)[name].__doc__
