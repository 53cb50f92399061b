"""How a merge answers one task's samples, beside the task's own expert."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import kl_div, log_softmax, normalize

from mloss.batches import Data, batches
from mloss.compare.heads import Head
from mloss.compare.intervals import Interval, wilson
from mloss.compare.pooling import Pooling, pooled
from mloss.given_models import Model, in_one_model
from mloss.inference import evaluating
from mloss.outputs import check_finite, flat_output
from mloss.states import State

Reads = Literal["classes", "neighbours"]


@dataclass(frozen=True, eq=False)
class Agreement:
    """Sample by sample, whether merge and expert agree and how far apart they are.

    With `reads` "classes" they agree where their highest score is the same class, and
    `divergence` is KL(expert || merge) in nats. With "neighbours", of embeddings
    without a head, they agree where the sample nearest by cosine is the same one of the
    task's other samples, and `divergence` is 1 minus the cosine of the two embeddings.
    """

    agrees: Float[Tensor, " sample"]
    divergence: Float[Tensor, " sample"]
    reads: Reads

    @property
    def rate(self) -> Interval:
        """How often they agree, with a 95 % interval (Wilson's)."""
        return wilson(self.agrees)

    @property
    def mean_divergence(self) -> float:
        """Mean over the samples."""
        return self.divergence.mean().item()


def agreement(
    merged: Model,
    expert: Model,
    data: Data,
    *,
    model: nn.Module | None = None,
    head: Head | None = None,
    pooling: Pooling = "mean",
) -> Agreement:
    """Compare a merge with a task's expert on unlabelled samples of the task.

    `head` turns the model's output, one row a sample (`pooled`), into class scores:
    a `LinearHead`, or `nn.Identity()` where the output is scores already. Without it
    what the model calls logits is read as scores, and anything else as an embedding.
    Models are given as to `mloss.gap`. Raises ValueError as that does, for fewer than
    two classes, and for fewer than three samples where neighbours are compared.
    """
    run_in, ours, (theirs,) = in_one_model(
        merged, [expert], model=model, base_is="merged"
    )
    samples = list(batches(data))
    with evaluating(run_in), pooled(run_in, pooling=pooling) as output:
        found = rows(run_in, ours, samples)
        reference = rows(run_in, theirs, samples)
    if head is None and output.logits:
        head = nn.Identity()
    return agreement_of_rows(found, reference, head=head)


def rows(
    model: nn.Module, state: State, samples: Data
) -> Float[Tensor, "sample entry"]:
    """Outputs of all samples, in the precision they have, on the CPU."""
    held = dict(state)
    each = [flat_output(model, held, batch).cpu() for batch in batches(samples)]
    found = torch.cat(each)
    check_finite(found)
    return found


def agreement_of_rows(
    merged: Float[Tensor, "sample entry"],
    expert: Float[Tensor, "sample entry"],
    *,
    head: Head | None,
) -> Agreement:
    """Compare two models' outputs of the same samples, in float64."""
    ours, theirs = merged.double(), expert.double()
    if head is None:
        return _by_neighbours(ours, theirs)
    return _by_classes(head(ours), head(theirs))


def _by_classes(
    ours: Float[Tensor, "sample class_"], theirs: Float[Tensor, "sample class_"]
) -> Agreement:
    if ours.shape[1] < 2:
        raise ValueError(
            "classes are compared by which has the highest score, which takes at least "
            f"2 of them, got {ours.shape[1]} a sample"
        )
    agrees = (ours.argmax(dim=1) == theirs.argmax(dim=1)).double()
    logs, target = log_softmax(ours, dim=1), log_softmax(theirs, dim=1)
    divergence = kl_div(logs, target, reduction="none", log_target=True).sum(dim=1)
    # A divergence is not negative; its rounding may be.
    return Agreement(agrees, divergence.clamp(min=0), "classes")


def _by_neighbours(
    ours: Float[Tensor, "sample feature"], theirs: Float[Tensor, "sample feature"]
) -> Agreement:
    if len(ours) < 3:
        raise ValueError(
            "embeddings are compared by their nearest neighbours, which takes at least "
            f"3 samples, got {len(ours)}: give more, or a head"
        )
    ours, theirs = normalize(ours, dim=1), normalize(theirs, dim=1)
    agrees = (_nearest(ours) == _nearest(theirs)).double()
    distance = 1 - (ours * theirs).sum(dim=1)
    return Agreement(agrees, distance.clamp(min=0), "neighbours")


def _nearest(directions: Float[Tensor, "sample feature"]) -> Tensor:
    """Which other sample each one's direction is nearest to."""
    cosines = directions @ directions.T
    return cosines.fill_diagonal_(-2).argmax(dim=1)
