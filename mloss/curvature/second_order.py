"""The merged-vs-ensemble gap to second order in the models' differences."""

from collections.abc import Iterable

from jaxtyping import Float
from torch import Tensor, nn

from mloss.batches import Batch, batches
from mloss.curvature.family import Family
from mloss.curvature.forward_check import check_forward_mode
from mloss.curvature.second_derivative import Method, check_method
from mloss.inference import evaluating
from mloss.states import State
from mloss.weights import Weights


def second_order_gap(
    model: nn.Module,
    sources: Iterable[nn.Module | State],
    *,
    data: Batch,
    weights: Weights = None,
    method: Method = "forward",
) -> Float[Tensor, "sample entry"]:
    r"""Predict f(theta_bar; x) - sum_i w_i f(theta_i; x), theta_bar the average.

    .. math:: -\tfrac12 \sum_i w_i\, D^2 f(\bar\theta; x)[\delta_i, \delta_i]
        = -\tfrac12 \sum_m c_m\, D^2 f(\bar\theta; x)[d_m, d_m]

    with delta_i = theta_i - theta_bar and the q - 1 directions of `scatter`.
    The second form is the one computed, in the architecture `model`; `method` is that
    of `second_derivative`. The error is of third order in the differences, of fourth
    for two equal weights; f of degree two in the parameters has none. Source:
    docs/theory.md, section 6.

    Raises ValueError for fewer than two sources, models or weights that do not match,
    outputs that are not finite, and where `check_forward_mode` does.
    """
    check_method(method)
    family = Family.of(model, sources, weights=weights)
    (batch,) = batches(data)
    with evaluating(family.model):
        if method == "forward":
            check_forward_mode(family.model, family.mean, batch)
        return family.second_order(batch, method=method)
