"""Expected M-Loss by simulation from its definition (paper Eqs. 3 to 7)."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import reduce
from math import hypot
from operator import add

import numpy as np
import numpy.typing as npt
from numpy.random import SeedSequence
from scipy.special import stdtrit

from simulate.activations import Activation, check_elementwise, resolve
from simulate.backends import backend_on
from simulate.discrepancy import Discrepancy
from simulate.inputs import InputLike, positive
from simulate.laws import positive_integer, pre_activation_law
from simulate.moments import Moments, Strata
from simulate.samplers import WEIGHTED, Simulation, Task, planned

SMALL = 1e-7  # of the activation's values: where rounding is looked at
# Of the value: with a larger error a loss is seldom met, its mean is skewed, and 95 %
# intervals have been seen to hold in 70 to 85 % of runs (benchmarks/coverage.py).
WIDEST = 0.1


@dataclass(frozen=True)
class Estimate:
    """A simulated mean of M-Loss and its standard error.

    `n` samples were used; `degrees` are the standard error's degrees of freedom.
    """

    value: float
    stderr: float
    n: int
    degrees: int

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """The central interval of that confidence level, by Student's t.

        Raises ValueError where the standard error is more than a tenth of the value:
        too few samples met a loss for their mean to be normal.
        """
        if not 0 < level < 1:
            raise ValueError(f"level must be between 0 and 1, got {level}")
        if self.stderr > WIDEST * self.value:
            raise ValueError(
                f"n must be larger, or the method sharper, for an honest interval: the "
                f"standard error {self.stderr:.2g} is more than a tenth of the value "
                f"{self.value:.2g}"
            )
        half = float(stdtrit(self.degrees, (1 + level) / 2)) * self.stderr
        return self.value - half, self.value + half


def estimate_mloss(
    activation: str | Activation,
    k: InputLike,
    sigma: float,
    *,
    q: int = 2,
    weights: npt.ArrayLike | None = None,
    cov: npt.ArrayLike | None = None,
    n: int,
    rng: np.random.Generator,
    method: str = "mc",
    normalized: bool = False,
    eps: float = 1e-4,
    backend: str = "numpy",
    device: str = "cpu",
    workers: int = 1,
) -> Estimate:
    """E|f(sum_i w_i h_i) - sum_i w_i f(h_i)| of one node (Eq. 4) from n samples.

    The law is the paper's (section 4): h_i = x + e_i for i = 1..q, with x ~ U(-k, k),
    or x from the input law given as `k`, and e ~ N(0, sigma^2 cov). `weights` [q]
    default to 1/q each and `cov` [q, q] to the identity. With `normalized` the loss is
    divided by |f(sum_i w_i h_i)| + eps (Eq. 7). `activation` is a name or an
    elementwise function of the backend's arrays.

    `method` is one of

    - "mc": independent samples;
    - "antithetic": pairs in which every variable is half its ranks away;
    - "stratified": two samples from each of n / 2 strata of x;
    - "importance": samples that follow the bends of f, found by evaluating f; what is
      missed costs variance and no bias;
    - "qmc": importance sampling with 16 to 31 independently scrambled Sobol sets of a
      power of two of points each, whose spread is the error.

    "qmc" is the sharpest throughout, by far for large k / sigma.

    The value carries the units of f. Memory does not grow with n. The result depends
    on nothing but the arguments and the state of `rng`: not on `workers`, the number
    of threads that the numpy backend works in.

    The standard error includes what rounding may do to a loss that is tiny beside f.
    Raises ValueError or TypeError naming the argument that is at fault: `n` where no
    sample met a loss though f bends, `sigma` where the loss is lost in rounding.
    """
    return estimate_layer_mloss(
        activation,
        k,
        sigma,
        nodes=1,
        q=q,
        weights=weights,
        cov=cov,
        n=n,
        rng=rng,
        method=method,
        normalized=normalized,
        eps=eps,
        backend=backend,
        device=device,
        workers=workers,
    )


def estimate_layer_mloss(
    activation: str | Activation,
    k: InputLike,
    sigma: float,
    *,
    nodes: int,
    correlation: npt.ArrayLike = 0.0,
    q: int = 2,
    weights: npt.ArrayLike | None = None,
    cov: npt.ArrayLike | None = None,
    n: int,
    rng: np.random.Generator,
    method: str = "mc",
    normalized: bool = False,
    eps: float = 1e-4,
    backend: str = "numpy",
    device: str = "cpu",
    workers: int = 1,
) -> Estimate:
    """Expected norm over a layer's nodes of the discrepancy (Eqs. 3 and 5).

    Every node has the law that `estimate_mloss` describes. `correlation`, a number or
    a matrix [nodes, nodes], holds between the errors of one model at two nodes, and
    between the normal scores of two nodes' base inputs (a Gaussian copula). With
    `normalized` the norm is divided by that of the merged output plus eps (Eq. 6).
    "stratified" stratifies the first independent input. The other arguments and the
    errors raised are those of `estimate_mloss`.
    """
    ops = backend_on(backend, device)
    f = resolve(activation, ops.named)
    law = pre_activation_law(
        k, sigma, q=q, weights=weights, cov=cov, nodes=nodes, correlation=correlation
    )
    loss = Discrepancy(
        f, law.weights, positive("eps", eps) if normalized else None, ops
    )
    if not isinstance(rng, np.random.Generator):
        raise TypeError(f"rng must be a numpy.random.Generator, got {rng!r}")
    if positive_integer("workers", workers) > 1 and backend != "numpy":
        raise ValueError(f"workers must be 1 for backend {backend!r}, got {workers}")
    probes = law.inputs.quantile(ops.asarray(np.linspace(0, 1, 8)), ops)
    check_elementwise(f, probes, ops.asarray)
    return _estimate(Simulation(law, loss, ops), method, n, rng=rng, workers=workers)


def _estimate(
    sim: Simulation, method: str, n: int, *, rng: np.random.Generator, workers: int
) -> Estimate:
    if method in WEIGHTED:
        sim = sim.weighted()
    elif method == "antithetic":
        sim = sim.aligned()
    plan = planned(sim, method, n)
    # Drawn and not spawned, so that the state of rng alone decides.
    seed = SeedSequence(rng.integers(2**32, size=8).tolist())
    seeds = seed.spawn(len(plan.tasks) + 1)
    moments = reduce(add, _mapped(plan.tasks, seeds[:-1], workers))
    stderr = moments.stderr
    if moments.mean <= SMALL * sim.output_size():
        stderr = hypot(stderr, _rounding(sim.weighted(), moments.mean, seeds[-1]))
    return Estimate(moments.mean, stderr, plan.samples, moments.degrees)


def _rounding(sim: Simulation, mean: float, seed: SeedSequence) -> float:
    """What rounding may have done to a mean that is small beside f itself."""
    if sim.proposal is None:
        return 0.0
    if mean == 0:
        raise ValueError(
            "n must be larger, or the method 'importance' or 'qmc': no sample met a "
            "loss, though the activation bends within reach"
        )
    rounding = sim.rounding(seed)
    if 2 * rounding > mean:
        raise ValueError(
            f"sigma must be larger: of the loss {mean:.2g} that it makes, "
            f"{rounding:.2g} may be rounding of the activation"
        )
    return rounding


def _mapped(
    tasks: Sequence[Task], seeds: Sequence[SeedSequence], workers: int
) -> Iterator[Moments | Strata]:
    if workers == 1:
        yield from map(_call, tasks, seeds)
        return
    with ThreadPoolExecutor(workers) as pool:
        yield from pool.map(_call, tasks, seeds)


def _call(task: Task, seed: SeedSequence) -> Moments | Strata:
    return task(seed)
