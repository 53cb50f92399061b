"""Unlabelled samples of each source's own task, and what is predicted for them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from jaxtyping import Float
from torch import Tensor, nn

from mloss.batches import Batch, Data, batches, real_tokens, size
from mloss.finite import all_finite
from mloss.inference import forward
from mloss.outputs import check_finite
from mloss.recording import visited
from mloss.states import State

# From a model's output to class logits, classes along the last axis.
Head: TypeAlias = Callable[[Tensor], Tensor]
Heads: TypeAlias = Sequence[Head] | None


@dataclass(frozen=True)
class Task:
    """Batches of one source's own samples, and the head that classifies them."""

    batches: Sequence[Batch]
    head: Head | None


def own_tasks(task_data: Sequence[Data], heads: Heads = None, *, q: int) -> list[Task]:
    """Give every source its task: the batches of its data, and its head if any.

    Raises TypeError for data that are no sequence and heads that cannot be called, and
    ValueError unless there are q of each, and as `mloss.batches.batches` does.
    """
    if isinstance(task_data, str) or not isinstance(task_data, Sequence):
        raise TypeError(
            "task_data must be a sequence with the data of each source, "
            f"got {type(task_data).__name__}"
        )
    given = [None] * q if heads is None else list(heads)
    for name, values in (("task_data", task_data), ("heads", given)):
        if len(values) != q:
            raise ValueError(
                f"{name} must hold one entry for each of the {q} source models, "
                f"got {len(values)}"
            )
    for index, head in enumerate(given):
        if not (head is None or callable(head)):
            raise TypeError(
                f"heads[{index}] must be callable, got {type(head).__name__}"
            )
    return [
        Task(list(batches(data)), head)
        for data, head in zip(task_data, given, strict=True)
    ]


@dataclass(frozen=True)
class Predictions:
    """A model's outputs, one row for each sample or real token, and what they are."""

    rows: Float[Tensor, "row entry"]
    are_logits: bool


def predictions(
    model: nn.Module, state: State, batch: Batch, *, head: Head | None
) -> Predictions:
    """What the model predicts with the parameters of a state.

    With a head these are its logits; without one the output of the name "logits" where
    the model names its outputs, as `transformers` does, or else its first tensor as it
    is, an embedding. Raises ValueError where that has not one row a sample or is not
    finite.
    """
    seen: list[object] = []
    with visited(model, {"": lambda _, output: seen.append(output)}):
        output = forward(model, state, batch)
    (whole,) = seen
    logits = whole.get("logits") if isinstance(whole, Mapping) else None
    if head is not None:
        output = logits = head(output)
    elif logits is not None:
        output = logits
    if output.ndim < 2 or len(output) != size(batch):
        raise ValueError(
            f"the output must have one row for each of the {size(batch)} samples, "
            f"got shape {tuple(output.shape)}"
        )
    check_finite(output)
    return Predictions(real_rows(output, batch), are_logits=logits is not None)


def real_rows(
    values: Float[Tensor, "sample *token entry"], batch: Batch
) -> Float[Tensor, "row entry"]:
    """Values of every sample and token of a batch in rows, without the padding."""
    tokens = real_tokens(batch)
    if tokens is not None and values.ndim > 2 and values.shape[:2] == tokens.shape:
        return values[tokens.to(values.device)].reshape(-1, values.shape[-1])
    return values.reshape(-1, values.shape[-1])


def entering_rows(
    entering: Float[Tensor, "sample *token entry"], batch: Batch, *, layer: str
) -> Float[Tensor, "row entry"]:
    """`real_rows` of what enters a layer; ValueError where they are not finite."""
    rows = real_rows(entering, batch)
    if not all_finite(rows):
        raise ValueError(
            f"what enters the layer {layer!r} holds a NaN or an infinity: the samples "
            "or a model are damaged"
        )
    return rows
