"""M-Loss of given pre-activations, by its definition (paper Eqs. 3 to 7)."""

from dataclasses import dataclass

from simulate.activations import Activation, Array, evaluate
from simulate.backends import Backend, Block

EPS = 2.0**-52
ROUNDINGS = 2  # of each side: those of the two means and the activation's own


@dataclass(frozen=True)
class Discrepancy:
    """The merge's distance from the ensemble as a function of pre-activations.

    With `eps` None it is the norm over the nodes of f(sum_i w_i h_i) - sum_i w_i f(h_i)
    (Eq. 3; Eq. 4 for one node); otherwise that is divided by the norm of the merged
    output plus eps (Eqs. 6 and 7). `weights` [q] are the merging weights.
    """

    f: Activation
    weights: Array
    eps: float | None
    ops: Backend

    def __call__(self, h: Block, flat: Block | None = None) -> Block:
        """Loss [n] of pre-activations h [q, d, n].

        Where `flat` [d, n] says that f is a line, a node's difference that rounding
        explains is none.
        """
        merged, ensembled = self._sides(h)
        apart = merged - ensembled
        if flat is not None:
            rounded = abs(apart) <= self._rounding(merged, ensembled)
            apart = self.ops.xp.where(flat & rounded, 0.0, apart)
        return self._relative(apart, merged)

    def unresolved(self, h: Block, flat: Block) -> Block:
        """What rounding may be [n] of the loss of h [q, d, n], where it may be all.

        The nodes that `flat` [d, n] marks have no part in it.
        """
        merged, ensembled = self._sides(h)
        rounding = self._rounding(merged, ensembled)
        hides = (abs(merged - ensembled) <= rounding) & ~flat
        return self._relative(self.ops.xp.where(hides, rounding, 0.0), merged)

    def _sides(self, h: Block) -> tuple[Block, Block]:
        merged = evaluate(self.f, self._mean(h), self.ops.asarray)
        return merged, self._mean(evaluate(self.f, h, self.ops.asarray))

    def _relative(self, apart: Block, merged: Block) -> Block:
        loss = self._norm(apart)
        return loss if self.eps is None else loss / (self._norm(merged) + self.eps)

    @staticmethod
    def _rounding(merged: Block, ensembled: Block) -> Block:
        return ROUNDINGS * EPS * (abs(merged) + abs(ensembled))

    def _mean(self, values: Block) -> Block:
        # einsum, not BLAS: its sums do not depend on the number of threads.
        return self.ops.xp.einsum("i,i...->...", self.ops.asarray(self.weights), values)

    def _norm(self, values: Block) -> Block:
        if len(values) == 1:
            return abs(values[0])
        return self.ops.xp.sqrt((values * values).sum(axis=0))
