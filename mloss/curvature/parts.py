"""The second-order gap in parts that add up to it: which parameters, which pairs."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations_with_replacement

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.linalg import vector_norm

from mloss.batches import Batch, Data, batches
from mloss.curvature.family import Family
from mloss.curvature.forward_check import check_forward_mode
from mloss.curvature.groups import ParameterGroup, parameter_groups
from mloss.curvature.second_derivative import Method, check_method
from mloss.inference import evaluating
from mloss.sites import find_sites
from mloss.states import State, mergeable
from mloss.weights import Weights

_Keys = frozenset[str]


@dataclass(frozen=True)
class GapParts:
    """How groups of parameters make up the second-order gap, over all samples.

    With M_gh = -1/2 sum_i w_i D^2 f(theta_bar)[delta_ig, delta_ih], where delta_ig is
    source i's deviation in the parameters of group g, the total is T = sum_gh M_gh. A
    part's share is its projection <part, T> / <T, T>, inner products over samples and
    outputs: shares of parts that add up to T add up to 1. A negative one works
    against the gap.

    `shares` [group] are those of sum_h M_gh, so that what two groups do together is
    split evenly, and `within` [group] those of M_gg. `blocks` names the blocks in
    order and `between` [block, block] holds the shares of their M, None where that was
    not asked for.

    `gap` and `second_order` are mean norms over samples, of the measured gap and of
    T. `remainder` is the root mean square of gap - T over that of the gap: third and
    higher orders, and what kinks hide (infinite where only the gap is zero).
    """

    groups: tuple[ParameterGroup, ...]
    shares: Float[Tensor, " group"]
    within: Float[Tensor, " group"]
    blocks: tuple[str, ...]
    between: Float[Tensor, "block block"] | None
    gap: float
    second_order: float
    remainder: float
    samples: int


def explain_gap(
    model: nn.Module,
    sources: Iterable[nn.Module | State],
    *,
    data: Data,
    weights: Weights = None,
    groups: Sequence[ParameterGroup] | None = None,
    between_blocks: bool = False,
    method: Method = "forward",
) -> GapParts:
    """Split the second-order gap of the sources' average by groups of parameters.

    `groups` are by default those of `parameter_groups`; together they must hold every
    floating-point key once. `method` is that of `second_derivative`. For G groups, B
    blocks and q sources a batch takes 2 (q - 1) G second derivatives, and
    (q - 1) B (B + 1) / 2 more with `between_blocks`.

    Raises ValueError as `second_order_gap` does, where the groups do not fit or an
    output is not finite, and where T vanishes, as there is nothing to explain.
    """
    check_method(method)
    family = Family.of(model, sources, weights=weights)
    tally: _Tally | None = None
    with evaluating(model):
        for batch in batches(data):
            if tally is None:
                if method == "forward":
                    check_forward_mode(model, family.mean, batch)
                found = groups or parameter_groups(model, find_sites(model, batch))
                _check_groups(found, family.mean)
                tally = _Tally(found, between_blocks=between_blocks)
            tally.add(family, batch, method=method)
    assert tally is not None, "batches() gives at least one"
    return tally.result()


def _check_groups(groups: Sequence[ParameterGroup], state: State) -> None:
    times = Counter(key for group in groups for key in group.keys)
    if repeated := [key for key, count in times.items() if count > 1]:
        raise ValueError(f"groups hold {repeated[0]!r} more than once")
    expected = {key for key, value in state.items() if mergeable(value)}
    if unmatched := sorted(expected ^ times.keys()):
        raise ValueError(
            f"groups must hold every floating-point key and no other: {unmatched[0]!r}"
        )


class _Tally:
    """Inner products of the parts with the total, summed over what was seen."""

    def __init__(
        self, groups: Sequence[ParameterGroup], *, between_blocks: bool
    ) -> None:
        self.groups = tuple(groups)
        self.blocks = tuple(dict.fromkeys(group.block for group in groups))
        self.shares = torch.zeros(len(groups), dtype=torch.float64)
        self.within = torch.zeros_like(self.shares)
        blocks = len(self.blocks) if between_blocks else 0
        self.between = torch.zeros(blocks, blocks, dtype=torch.float64)
        # Of the gap, the total and their difference, sample by sample.
        self.norms: tuple[list[Tensor], ...] = ([], [], [])

    def add(self, family: Family, batch: Batch, *, method: Method) -> None:
        """Count one batch in."""
        form = partial(family.second_order, batch, method=method)
        keys = [frozenset(group.keys) for group in self.groups]
        rows = torch.stack([form(first=group) for group in keys])
        total = rows.sum(dim=0)
        self.shares += torch.stack([_inner(row, total) for row in rows])
        for index, group in enumerate(keys):
            self.within[index] += _inner(form(first=group, second=group), total)
        for (i, first), (j, second) in self._block_pairs():
            self.between[i, j] += _inner(form(first=first, second=second), total)
        gap = family.measured(batch)
        for norms, values in zip(self.norms, (gap, total, gap - total), strict=True):
            norms.append(vector_norm(values, dim=1).cpu())

    def result(self) -> GapParts:
        """Divide by the total's square."""
        gap, total, rest = (torch.cat(norms) for norms in self.norms)
        size = total.square().sum()
        if size == 0:
            raise ValueError("the sources have no second-order gap to explain")
        between = self.between + self.between.triu(diagonal=1).T
        return GapParts(
            groups=self.groups,
            shares=self.shares / size,
            within=self.within / size,
            blocks=self.blocks,
            between=between / size if len(between) else None,
            gap=gap.mean().item(),
            second_order=total.mean().item(),
            remainder=_ratio(vector_norm(rest).item(), vector_norm(gap).item()),
            samples=len(gap),
        )

    def _block_pairs(self) -> Iterable[tuple[tuple[int, _Keys], tuple[int, _Keys]]]:
        """Every block with itself and those after it, where that was asked for."""
        keys: dict[str, list[str]] = {block: [] for block in self.blocks}
        for group in self.groups:
            keys[group.block] += group.keys
        wanted = list(enumerate(map(frozenset, keys.values())))[: len(self.between)]
        return combinations_with_replacement(wanted, 2)


def _inner(part: Tensor, total: Tensor) -> Tensor:
    return (part * total).sum().cpu()


def _ratio(rest: float, gap: float) -> float:
    return rest / gap if gap > 0 else math.inf
