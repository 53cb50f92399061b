"""A small residual GELU network on real digits: merges that anyone can repeat.

One base, eight tasks with frozen heads, a fine-tune of the base for each task and
learning rate, and studies of their merges. Nothing is downloaded; results are cached.
"""

from mloss.digits.merges import MergeTable, merge_table
from mloss.digits.models import DigitsModels, FineTune, load_digits_models
from mloss.digits.node_scores import NodeMap, node_map
from mloss.digits.pairs import PREDICTORS, PairStudy, pair_study
from mloss.digits.tasks import TASKS, Task
from mloss.digits.training import Recipe

__all__ = [
    "PREDICTORS",
    "TASKS",
    "DigitsModels",
    "FineTune",
    "MergeTable",
    "NodeMap",
    "PairStudy",
    "Recipe",
    "Task",
    "load_digits_models",
    "merge_table",
    "node_map",
    "pair_study",
]
