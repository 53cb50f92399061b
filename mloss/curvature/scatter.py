"""The spread of source models around their mean as a few directions."""

from collections.abc import Iterator, Sequence

from jaxtyping import Float
from torch import Tensor

from mloss.states import State, mergeable


def scatter(
    states: Sequence[State], weights: Float[Tensor, " q"]
) -> Iterator[tuple[float, dict[str, Tensor]]]:
    r"""The q - 1 pairs (c_m, d_m) whose outer products add up to the spread.

    .. math:: \sum_i w_i \delta_i \delta_i^T = \sum_{m=2}^q c_m d_m d_m^T, \quad
        d_m = \theta_m - \mu_{m-1}, \quad c_m = w_m W_{m-1} / W_m

    with delta_i the deviation from the weighted mean of all, mu_m the mean of the
    first m sources and W_m the sum of their weights: the update of Chan, Golub and
    LeVeque (1983). Any bilinear form has the same mean over both sides. Directions
    are in the dtype of the states and lack the tensors that are zero throughout; that
    of a source of weight zero is empty.
    """
    total = weights[0].item()
    mean = {key: v.double() for key, v in states[0].items() if mergeable(v)}
    for weight, state in zip(weights[1:].tolist(), states[1:], strict=True):
        if weight == 0:
            yield 0.0, {}
            continue
        step = {key: state[key].double() - centre for key, centre in mean.items()}
        before, total = total, total + weight
        mean = {key: mean[key] + step[key] * (weight / total) for key in mean}
        used = {key: d.to(state[key].dtype) for key, d in step.items() if d.any()}
        yield weight * before / total, used
