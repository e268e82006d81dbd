"""Every error of the library is a GradNoiseError, and also what Python would call it."""

import inspect

import pytest

import gradnoise as gn
from gradnoise import errors

ERRORS = [e for e in vars(errors).values() if inspect.isclass(e) and issubclass(e, Exception)]


@pytest.mark.parametrize("error", ERRORS)
def test_every_error_is_caught_as_a_gradnoise_error(error):
    with pytest.raises(gn.GradNoiseError, match="what was got"):
        raise error("what was got")


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


@pytest.mark.parametrize("error", ERRORS)
def test_every_error_is_listed_and_says_when_it_is_raised(error):
    assert error.__name__ in errors.__all__
    assert error.__doc__


@pytest.mark.parametrize("value", [2, 3, 10**9])
def test_a_whole_number_large_enough_is_accepted(value):
    assert errors.check_whole("probes", value, 2) is None


@pytest.mark.parametrize("value", [0, -1, 2.0, "2", None, True])
def test_what_is_no_whole_number_large_enough_is_refused(value):
    with pytest.raises(gn.ArgumentError, match="`probes` must be a whole number from 1 on; got"):
        errors.check_whole("probes", value, 1)
