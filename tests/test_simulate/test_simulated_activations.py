import numpy as np
import pytest
from numpy.testing import assert_allclose

from simulate.activations import evaluate, resolve

EPS = np.finfo(np.float64).eps

# Values at -1 and 2, from the definitions in 50-digit arithmetic.
VALUES = {
    "relu": (0.0, 2.0),
    "leaky_relu": (-0.01, 2.0),
    "gelu": (-0.158655253931457051, 1.95449973610364159),
    "gelu_tanh": (-0.158808009391723295, 1.95459769408777502),
    "quick_gelu": (-0.154204234067178704, 1.93565862314420815),
    "silu": (-0.268941421369995121, 1.76159415595576489),
    "softplus": (0.313261687518222834, 2.1269280110429725),
    "mish": (-0.303401461374108918, 1.94395895953399452),
    "tanh": (-0.761594155955764888, 0.964027580075816884),
    "identity": (-1.0, 2.0),
}


@pytest.mark.parametrize("name", VALUES)
def test_values(name):
    # Fewer than ten roundings, on numbers of at most 2.
    found = evaluate(resolve(name), np.array([-1.0, 2.0]))
    assert_allclose(found, VALUES[name], rtol=0, atol=20 * EPS)


@pytest.mark.parametrize("name", VALUES)
def test_far_tails_stay_finite(name):
    assert np.isfinite(evaluate(resolve(name), np.array([-1e100, 1e100]))).all()


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"one of relu, .*, identity, got 'swish'"):
        resolve("swish")


def test_only_names_and_functions_are_activations():
    with pytest.raises(TypeError, match="a name or a function of an array, got 3"):
        resolve(3)


def test_a_function_of_the_whole_array_is_refused():
    with pytest.raises(
        ValueError, match=r"elementwise: it mapped shape \(2,\) to \(\)"
    ):
        evaluate(np.sum, np.array([1.0, 2.0]))


def test_the_offending_point_is_named():
    def pole(x):
        return np.where(x == 2, np.inf, x)

    with pytest.raises(ValueError, match=r"must be finite, got inf at 2\.0"):
        evaluate(pole, np.array([1.0, 2.0, 3.0]))
