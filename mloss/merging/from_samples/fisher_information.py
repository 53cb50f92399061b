"""The diagonal Fisher information of a model's parameters, on unlabelled samples."""

from collections.abc import Iterator, Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mloss.batches import Batch, part, size
from mloss.merging.from_samples.task_data import Predictions, Task, predictions
from mloss.merging.from_samples.tied import first_names
from mloss.states import State, mergeable


def fisher_information(
    model: nn.Module,
    state: State,
    task: Task,
    *,
    probes: int | None,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    r"""Mean over predictions of E_y (d log p(y | x) / d theta)^2, by parameter.

    The expectation is over the model's own law of y: the classes by their softmax where
    the outputs are logits, or else a Gaussian of unit variance around them, for which
    it is sum_j (d y_j / d theta)^2. Both are the diagonal of J' L L' J, with J the
    Jacobian of a row of outputs and L L' the covariance of the score.

    Exactly (`probes` None) that takes one backward pass for each row and each output.
    With probes it is the mean of (e' L' J)^2 over that many vectors e of random signs,
    which are independent between rows, so that one backward pass serves a whole batch.
    It is unbiased. Squares are summed in float64, and memory does not grow with the
    samples. Parameters that are tied count once. Run it in `evaluating(model)`.
    """
    first = first_names(model)
    values = {key: state[first.get(key, key)].detach() for key in state}
    leaves = {
        key: values[key].requires_grad_()
        for key in dict.fromkeys(first.values())
        if mergeable(values[key])
    }
    held = {key: values[first.get(key, key)] for key in state}
    squares = {k: torch.zeros_like(v, dtype=torch.float64) for k, v in leaves.items()}
    count = 0
    for batch in task.batches:
        for piece in [batch] if probes is not None else _one_by_one(batch):
            with torch.enable_grad():
                given = predictions(model, held, piece, head=task.head)
            count += len(given.rows)
            for signs in _signs(given.rows, probes, generator):
                _add_squares(squares, leaves, given, signs)
    return {key: squares[name] / count for key, name in first.items() if name in leaves}


def _add_squares(
    squares: Mapping[str, Tensor],
    leaves: Mapping[str, Tensor],
    given: Predictions,
    signs: Float[Tensor, "row entry"],
) -> None:
    gradients = torch.autograd.grad(
        given.rows,
        list(leaves.values()),
        grad_outputs=_scores(given, signs),
        retain_graph=True,
        allow_unused=True,
    )
    for key, gradient in zip(leaves, gradients, strict=True):
        if gradient is not None:
            squares[key].add_(gradient.double().square_())


def _scores(
    given: Predictions, signs: Float[Tensor, "row entry"]
) -> Float[Tensor, "row entry"]:
    """L e for each row: L L' is diag(p) - p p' of a softmax and I of a Gaussian.

    For logits L = diag(sqrt p) - p sqrt(p)', whose column c is sqrt(p_c) times the
    derivative of log p_c by the logits.
    """
    if not given.are_logits:
        return signs
    p = given.rows.detach().softmax(dim=-1)
    root = p.sqrt() * signs
    return root - p * root.sum(dim=-1, keepdim=True)


def _signs(
    rows: Tensor, probes: int | None, generator: torch.Generator
) -> Iterator[Float[Tensor, "row entry"]]:
    """Vectors e with a mean of e e' (or a sum of it) that is the identity."""
    if probes is None:
        for index in range(rows.numel()):
            one = torch.zeros(rows.numel(), dtype=rows.dtype, device=rows.device)
            one[index] = 1
            yield one.reshape(rows.shape)
        return
    for _ in range(probes):
        heads = torch.randint(
            2, rows.shape, generator=generator, device=generator.device
        )
        yield (2 * heads - 1).to(rows) / probes**0.5


def _one_by_one(batch: Batch) -> Iterator[Batch]:
    return (part(batch, slice(i, i + 1)) for i in range(size(batch)))
