"""Coefficients of task vectors under which a merge is surest of its predictions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mloss.batches import Batch
from mloss.merging.from_samples.task_data import Head, Task, predictions
from mloss.merging.from_samples.tied import first_names
from mloss.merging.task_vectors import task_vectors
from mloss.progress import tracked
from mloss.states import State, mergeable
from mloss.streaming import AveragedState


@dataclass(frozen=True)
class Combination:
    """theta + sum_i lambda_i (theta_i - theta), a row of lambdas for each parameter.

    `vectors` holds the task vectors [q, *shape] of the parameters, in the base's
    precision. Tied parameters are one, of the name that `first` gives. What is no
    parameter is in `start` already as the merge has it.
    """

    start: State
    vectors: Mapping[str, Tensor]
    first: Mapping[str, str]

    @classmethod
    def of(
        cls,
        model: nn.Module,
        base: State,
        sources: Sequence[State],
        *,
        weights: Float[Tensor, " q"],
    ) -> "Combination":
        """All parameters of the model; running statistics are averaged."""
        first = first_names(model)
        average = AveragedState(base, sources, weights=weights)
        start = {key: v if key in first else average[key] for key, v in base.items()}
        vectors = {
            key: task_vectors(base, sources, key).to(start[key].dtype)
            for key in dict.fromkeys(first.values())
            if mergeable(start[key])
        }
        return cls(start, vectors, first)

    def at(self, coefficients: Float[Tensor, "parameter q"]) -> dict[str, Tensor]:
        """The parameters under coefficients in their order."""
        return {
            key: self.start[key] + torch.tensordot(row.to(each), each, dims=1)
            for row, (key, each) in zip(coefficients, self.vectors.items(), strict=True)
        }

    def whole(self, moved: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Every entry of the state, the parameters moved."""
        return {
            key: moved.get(self.first.get(key, key), value)
            for key, value in self.start.items()
        }


def least_entropy(
    model: nn.Module,
    combination: Combination,
    tasks: Sequence[Task],
    *,
    initial: Float[Tensor, "parameter_or_one q"],
    shares: Sequence[float],
    steps: int,
    learning_rate: float,
) -> Float[Tensor, "parameter q"]:
    """Coefficients in [0, 1] that Adam finds for the least mean entropy of the classes.

    Each step adds up `shares` of the tasks' entropies, on one batch of every task in
    turn. A single row of coefficients serves all parameters. Run it in
    `evaluating(model)`.
    """
    free = initial.double().clone().requires_grad_()
    optimiser = torch.optim.Adam([free], lr=learning_rate)

    def coefficients() -> Tensor:
        return free.clamp(0, 1).expand(len(combination.vectors), -1)

    for step in tracked(range(steps), "Minimising the entropy"):
        optimiser.zero_grad()
        with torch.enable_grad():
            merged = combination.at(coefficients())
        leaves = {k: v.detach().requires_grad_() for k, v in merged.items()}
        for task, share in zip(tasks, shares, strict=True):
            batch = task.batches[step % len(task.batches)]
            with torch.enable_grad():
                loss = share * _entropy(
                    model, combination.whole(leaves), batch, head=task.head
                )
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        reached = [key for key, leaf in leaves.items() if leaf.grad is not None]
        torch.autograd.backward(
            [merged[key] for key in reached], [leaves[key].grad for key in reached]
        )
        optimiser.step()
    return coefficients()


def _entropy(
    model: nn.Module, state: State, batch: Batch, *, head: Head | None
) -> Float[Tensor, ""]:
    """Mean entropy, in nats, of the classes that are predicted."""
    predicted = predictions(model, state, batch, head=head)
    if not predicted.are_logits:
        raise ValueError(
            "the outputs are no class logits: heads must be given, one for each source"
        )
    logs = predicted.rows.log_softmax(dim=-1)
    return -(logs.exp() * logs).sum(dim=-1).mean()
