"""Whether torch differentiates a model right, seen on the model itself."""

import torch
from torch import Tensor, nn

from mloss.batches import Batch
from mloss.curvature.second_derivative import second_derivative
from mloss.states import State, mergeable

# Differences at these steps are good to 0.1 % on the architectures of the tests, even
# where a model computes in float32 by itself; a wrong operation is off by 7 % or more.
_TOLERANCE = 0.01
_RELATIVE_STEP = 2.0


def check_forward_mode(model: nn.Module, centre: State, batch: Batch) -> None:
    """Raise ValueError where nested forward mode and differences disagree by over 1 %.

    Compares D^2 f(centre; x)[d, d] for the first two samples of the batch, in float64,
    along a fixed random direction; the outermost step of the differences moves an
    entry by about 1.6 % of its tensor's root mean square. Kinks are noticed where
    these steps cross one.
    """
    point = {key: _in_float64(value) for key, value in centre.items()}
    along = _random_direction(point)
    few: Batch = (
        _in_float64(batch[:2])
        if isinstance(batch, Tensor)
        else {name: _in_float64(value[:2]) for name, value in batch.items()}
    )
    exact = second_derivative(model, point, few, first=along)
    checked = second_derivative(model, point, few, first=along, method="differences")
    off, size = (exact - checked).norm().item(), checked.norm().item()
    if off > _TOLERANCE * size:
        raise ValueError(
            f"the second derivative of {type(model).__name__} by method 'forward' "
            f"differs from central differences by {off / size:.0%}: its activations "
            "have kinks, or torch differentiates one of its operations wrongly; "
            "use method 'differences'"
        )


def _random_direction(centre: State) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    direction = {}
    for key, value in centre.items():
        if mergeable(value):
            noise = torch.randn(value.shape, generator=generator, dtype=value.dtype)
            size = value.square().mean().sqrt() * _RELATIVE_STEP
            direction[key] = noise.to(value.device) * size
    return direction


def _in_float64(value: Tensor) -> Tensor:
    return value.double() if value.is_floating_point() else value
