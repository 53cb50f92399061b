import subprocess
import sys

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from simulate import Empirical, Gaussian, Laplace, estimate_layer_mloss, estimate_mloss
from simulate.activations import KNOWN
from simulate.samplers import METHODS
from simulate.torch_backend import NAMED

EPS = np.finfo(np.float64).eps
LEVEL = 1 - 1e-7


def overlap(one, other):
    return (
        one.interval(LEVEL)[0] <= other.interval(LEVEL)[1]
        and other.interval(LEVEL)[0] <= one.interval(LEVEL)[1]
    )


def test_importing_simulate_leaves_torch_alone():
    code = "import simulate, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0  # noqa: S603 - our own code


def test_both_backends_know_the_same_activations():
    assert list(NAMED) == list(KNOWN)


@pytest.mark.parametrize("name", KNOWN)
def test_activations_agree(name):
    x = np.linspace(-40, 45, 2001)
    found = NAMED[name](torch.from_numpy(x)).numpy()
    # A few roundings of numbers up to |x|, and exp's argument of that size.
    assert_allclose(found, KNOWN[name](x), rtol=128 * EPS, atol=64 * EPS)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("law", [3.0, Gaussian(0.2), Laplace(2.0)], ids=repr)
def test_estimates_agree(method, law):
    found = [
        estimate_mloss(
            "gelu",
            law,
            1.0,
            q=3,
            n=2**16,
            rng=np.random.default_rng(1),
            method=method,
            backend=backend,
        )
        for backend in ("numpy", "torch")
    ]
    assert found[0].stderr < 0.02 * found[0].value
    assert overlap(*found)
    if method == "qmc":
        # The same points, but for the last digits of their normal quantiles.
        assert_allclose(found[0].value, found[1].value, rtol=1e-6)


@pytest.mark.parametrize("method", ["importance", "qmc"])
def test_layers_agree(method):
    found = [
        estimate_layer_mloss(
            "relu",
            Empirical(np.linspace(-6, 6, 41)),
            1.0,
            nodes=3,
            correlation=0.5,
            cov=[[1.0, 0.3], [0.3, 2.0]],
            n=2**14,
            rng=np.random.default_rng(1),
            method=method,
            normalized=True,
            backend=backend,
        )
        for backend in ("numpy", "torch")
    ]
    assert overlap(*found)


def test_a_function_of_tensors_is_welcome():
    named, own = (
        estimate_mloss(
            f, 1.0, 1.0, n=1000, rng=np.random.default_rng(0), backend="torch"
        )
        for f in ("silu", torch.nn.SiLU())
    )
    assert named == own


@pytest.mark.parametrize("device", ["cuda", "nowhere", "meta", "hpu"])
def test_a_device_that_is_not_there_is_named(device):
    if device == "cuda" and torch.cuda.is_available():
        pytest.skip("needs a machine without a CUDA device")
    with pytest.raises(ValueError, match=f"device '{device}' is not available"):
        estimate_mloss(
            "relu",
            1.0,
            1.0,
            n=100,
            rng=np.random.default_rng(0),
            backend="torch",
            device=device,
        )


def test_threads_are_numpys():
    with pytest.raises(ValueError, match="workers must be 1 for backend 'torch'"):
        estimate_mloss(
            "relu",
            1.0,
            1.0,
            n=100,
            rng=np.random.default_rng(0),
            backend="torch",
            workers=2,
        )


@pytest.mark.gpu
@pytest.mark.parametrize("method", METHODS)
def test_a_gpu_agrees_with_the_cpu(method):
    found = [
        estimate_mloss(
            "gelu",
            3.0,
            1.0,
            n=2**20,
            rng=np.random.default_rng(1),
            method=method,
            backend="torch",
            device=device,
        )
        for device in ("cpu", "cuda")
    ]
    assert found[0].stderr < 0.005 * found[0].value
    assert overlap(*found)
    if method == "qmc":
        assert_allclose(found[0].value, found[1].value, rtol=1e-6)
