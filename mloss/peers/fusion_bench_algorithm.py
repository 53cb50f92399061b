"""Every merging method of ours as an algorithm of FusionBench."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

import torch
from fusion_bench import BaseAlgorithm, BaseModelPool
from fusion_bench.utils import instantiate
from omegaconf import OmegaConf
from torch import nn

from mloss.batches import Data
from mloss.merging import METHODS, merge


class MergingAlgorithm(BaseAlgorithm):  # type: ignore[misc]  # it has no types
    """A method of `mloss.merging.METHODS`, by its name and with its options.

    `options` are the method's own, `weights` among them; `seed` is for what it draws.
    `data` are batches of unlabelled inputs, `task_data` such batches for each model of
    the pool in turn, for the methods that need them. In a configuration all three may
    hold a `_target_`, of which FusionBench makes the object.
    """

    _config_mapping = BaseAlgorithm._config_mapping | {
        field: field for field in ("name", "options", "seed", "data", "task_data")
    }

    def __init__(
        self,
        *,
        name: str,
        options: Mapping[str, Any] | None = None,
        seed: int = 0,
        data: Data | None = None,
        task_data: Sequence[Data] | None = None,
        **others: Any,
    ) -> None:
        super().__init__(**others)
        self.name, self.options, self.seed = name, options, seed
        self.data, self.task_data = data, task_data

    def run(self, modelpool: BaseModelPool | dict[str, nn.Module]) -> nn.Module:
        """Merge the models of a pool onto its `_pretrained_`, none of which changes.

        Raises ValueError and TypeError as `mloss.merging.merge` does.
        """
        if not isinstance(modelpool, BaseModelPool):
            modelpool = BaseModelPool(modelpool)
        base = modelpool.load_model("_pretrained_")
        state = merge(
            base,
            modelpool.models(),
            method=self.name,
            data=_made(self.data),
            task_data=_made(self.task_data),
            **self._options(),
        ).state
        merged: nn.Module = deepcopy(base)
        merged.load_state_dict(state)
        return merged

    def _options(self) -> dict[str, Any]:
        options = dict(_made(self.options) or {})
        if self.name in METHODS and METHODS[self.name].draws:
            options["generator"] = torch.Generator().manual_seed(self.seed)
        return options


def _made(value: Any) -> Any:
    """What a part of a configuration describes; anything else is itself."""
    return instantiate(value, _convert_="all") if OmegaConf.is_config(value) else value
