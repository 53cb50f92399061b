"""Merging every pair of fine-tunes: the measured gap beside what foretells it.

A merge here is the plain average of two fine-tunes. All measurements share the same
unlabelled images. At a site (a linear layer and the GELU that follows) the sources
apply their own layer to one shared input.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.linalg import vector_norm

import mloss
import theory
from mloss.curvature import second_order_gap
from mloss.definitions import layer_mloss
from mloss.digits.cache import cached
from mloss.digits.models import DigitsModels
from mloss.digits.tabulated import tabulated_mloss
from mloss.gap import gap
from mloss.inference import evaluating, forward
from mloss.merging import average
from mloss.one_thread import one_thread
from mloss.pre_activations import pre_activations
from mloss.progress import tracked
from mloss.recording import recorded_inputs
from mloss.sites import Site, find_sites
from mloss.states import State
from theory import paper_approximation

Array = NDArray[np.float64]
PREDICTORS: Mapping[str, str] = {
    "second_order": "second-order functional of the weights",
    "theory": "expected M-Loss, summed over sites",
    "printed": "the paper's printed formula, summed over sites",
    "layer_mloss_at_merge": "layer M-Loss on the merge's inputs, summed over sites",
    "layer_mloss_at_base": "layer M-Loss on the base's inputs, summed over sites",
    "weight_distance": "distance between the two models' weights",
}


@dataclass(frozen=True)
class PairStudy:
    """One row for each pair of fine-tunes, in the order of `members`.

    `members` [pair, 2] indexes `names`. `gap` is the mean over images of the distance
    between the merge's and the ensemble's features, `gap_stderr` its standard error;
    `predictors` holds one array [pair] for each key of `PREDICTORS`. All are in
    units of the features but for "weight_distance".

    "second_order" is the mean over images of the norm of the predicted gap.
    "layer_mloss_*" are means over images of Eq. 3. "theory" and "printed" replace
    each node's mean M-Loss by a formula of its k = sqrt(3 mean x^2), x the base
    pre-activation, and sigma^2 = mean (h_1 - h_2)^2 / 2, take the norm over the nodes
    of a site (as Eq. 5 does) and sum over sites. The norm of means is at most the mean
    of norms, so that even an exact formula stays below the layer M-Loss.
    """

    names: tuple[str, ...]
    members: NDArray[np.int64]
    gap: Array
    gap_stderr: Array
    predictors: Mapping[str, Array]
    samples: int

    def among(self, names: Collection[str]) -> "PairStudy":
        """Keep the rows whose two fine-tunes are both in `names`.

        The experts of one learning rate have steps of about one length; over all pairs
        that length alone orders the gaps well. ValueError for a name the study does
        not know and where no pair is left.
        """
        if unknown := sorted(set(names) - set(self.names)):
            raise ValueError(
                f"names are those of the study's fine-tunes, got {unknown}"
            )
        known = np.isin(self.names, list(names))
        rows = known[self.members].all(axis=1)
        if not rows.any():
            raise ValueError(f"names must hold at least two, got {list(names)}")
        return replace(
            self,
            members=self.members[rows],
            gap=self.gap[rows],
            gap_stderr=self.gap_stderr[rows],
            predictors={name: v[rows] for name, v in self.predictors.items()},
        )


def pair_study(models: DigitsModels, *, samples: int = 128) -> PairStudy:
    """Measure all pairs, or read them back if nothing they depend on has changed."""
    table = cached(
        "digits-pairs",
        lambda: _measured(models, samples),
        config={**models.origin, "samples": samples},
        sources=(mloss, theory),
    )
    columns = {name: values.numpy() for name, values in table.items()}
    return PairStudy(
        names=tuple(tuned.name for tuned in models.fine_tunes),
        members=_members(models),
        gap=columns["gap"],
        gap_stderr=columns["gap_stderr"],
        predictors={name: columns[name] for name in PREDICTORS},
        samples=samples,
    )


def _members(models: DigitsModels) -> NDArray[np.int64]:
    return np.array(list(combinations(range(len(models.fine_tunes)), 2)))


def _measured(models: DigitsModels, samples: int) -> dict[str, Tensor]:
    bench = _Bench.of(models, samples)
    with one_thread(), evaluating(bench.model):
        rows = [
            bench.measure([models.fine_tunes[i].state for i in pair])
            for pair in tracked(_members(models).tolist(), "Merging pairs")
        ]
    columns = {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
    k, sigma = columns.pop("k").numpy(), columns.pop("sigma").numpy()
    for name, node_mloss in (
        ("theory", tabulated_mloss("gelu", k, sigma)),
        ("printed", paper_approximation("gelu", k, sigma)),
    ):
        by_site = np.linalg.norm(node_mloss, axis=-1)
        columns[name] = torch.from_numpy(by_site.sum(axis=-1))
    return columns


@dataclass(frozen=True)
class _Bench:
    """What the measurements of all pairs share."""

    base: State
    model: nn.Module
    images: Tensor
    sites: tuple[Site, ...]

    @classmethod
    def of(cls, models: DigitsModels, samples: int) -> "_Bench":
        """The embedded models on their unlabelled images."""
        model, images = models.encoder(), models.unlabelled(samples)
        return cls(models.base, model, images, find_sites(model, images))

    def measure(self, pair: Sequence[State]) -> dict[str, Tensor]:
        """The columns of one pair, with k and sigma [site, node] for the formulas."""
        merged = average(self.base, pair)
        measured = gap(merged, pair, self.images, model=self.model)
        foretold = second_order_gap(
            self.model, pair, data=self.images, method="differences"
        )
        x, *h = self.pre_activations([self.base, *pair], inputs_of=merged)
        return {
            "gap": torch.tensor(measured.mean, dtype=torch.float64),
            "gap_stderr": torch.tensor(measured.stderr, dtype=torch.float64),
            "second_order": vector_norm(foretold, dim=-1).mean(),
            "layer_mloss_at_merge": self.summed_mloss(pair, inputs_of=merged),
            "layer_mloss_at_base": self.summed_mloss(pair, inputs_of=self.base),
            "weight_distance": _distance(*pair),
            "k": (3 * x.square().mean(dim=1)).sqrt(),
            "sigma": ((h[0] - h[1]).square().mean(dim=1) / 2).sqrt(),
        }

    def summed_mloss(self, pair: Sequence[State], *, inputs_of: State) -> Tensor:
        """Layer M-Loss (Eq. 3), averaged over images and summed over sites."""
        h = self.pre_activations(pair, inputs_of=inputs_of)
        return layer_mloss(h, "gelu").mean(dim=-1).sum()

    def pre_activations(
        self, states: Sequence[State], *, inputs_of: State
    ) -> Float[Tensor, "model site image node"]:
        """Each state's layer at each site, on what reaches it in `inputs_of`."""
        with recorded_inputs(self.model, [site.layer for site in self.sites]) as seen:
            forward(self.model, inputs_of, self.images)

        def at_sites(state: State) -> Tensor:
            each = [
                pre_activations(self.model, site, state, inputs=seen[site.layer])
                for site in self.sites
            ]
            return torch.stack(each)

        return torch.stack([at_sites(state) for state in states])


def _distance(first: State, second: State) -> Tensor:
    squares = [(first[key] - second[key]).square().sum() for key in first]
    return torch.stack(squares).sum().sqrt()
