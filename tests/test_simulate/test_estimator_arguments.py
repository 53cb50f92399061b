import numpy as np
import pytest

from simulate import estimate_mloss
from simulate.samplers import METHODS


def test_an_unknown_method_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"one of mc, .*, qmc, got 'sobol'"):
        estimate_mloss(
            "relu", 1.0, 1.0, n=10, rng=np.random.default_rng(0), method="sobol"
        )


@pytest.mark.parametrize(
    ("method", "least"),
    [("mc", 2), ("antithetic", 4), ("stratified", 2), ("importance", 2), ("qmc", 256)],
)
def test_too_few_samples_have_no_standard_error(method, least):
    rng = np.random.default_rng(0)
    estimate_mloss(np.square, 1.0, 1.0, n=least, rng=rng, method=method)
    message = f"n must be at least {least}, got {least - 1}"
    with pytest.raises(ValueError, match=message):
        estimate_mloss(np.square, 1.0, 1.0, n=least - 1, rng=rng, method=method)


def test_zero_is_not_claimed_where_no_sample_met_a_bend():
    with pytest.raises(ValueError, match="n must be larger, or the method"):
        estimate_mloss("relu", 1e7, 1.0, n=1000, rng=np.random.default_rng(0))


@pytest.mark.parametrize("method", METHODS)
def test_a_loss_lost_in_rounding_is_refused(method):
    with pytest.raises(ValueError, match="sigma must be larger"):
        estimate_mloss(
            "gelu", 1.0, 1e-9, n=4096, rng=np.random.default_rng(0), method=method
        )


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"rng": 0}, TypeError, r"rng must be a numpy\.random\.Generator"),
        ({"weights": [0.2, 0.3, 0.5]}, ValueError, r"weights must have shape \(2,\)"),
        ({"backend": "jax"}, ValueError, "backend must be one of numpy, torch"),
        ({"device": "cuda"}, ValueError, "device must be 'cpu' for backend"),
        ({"workers": 0}, ValueError, "workers must be at least 1"),
        ({"normalized": True, "eps": 0.0}, ValueError, "eps must be finite and above"),
        ({"n": 10.5}, TypeError, "n must be an integer"),
    ],
)
def test_bad_arguments_are_named(arguments, error, message):
    given = {"n": 1000, "rng": np.random.default_rng(0), **arguments}
    with pytest.raises(error, match=message):
        estimate_mloss("relu", 1.0, 1.0, **given)


@pytest.mark.parametrize(
    ("activation", "message"),
    [
        (np.sum, "activation must be elementwise"),
        (lambda x: x - x.mean(), "activation must be elementwise"),
        (lambda x: np.where(abs(x) > 0.9, np.nan, x), "finite, got nan at -1.0"),
        (lambda x: np.full_like(x, -np.inf), "finite, got -inf at -1.0"),
        (lambda _: np.nan, "activation must be finite, got nan"),
    ],
)
def test_functions_that_are_no_activations_are_refused(activation, message):
    with pytest.raises(ValueError, match=message):
        estimate_mloss(activation, 1.0, 0.1, n=1000, rng=np.random.default_rng(0))
