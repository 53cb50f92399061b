"""Models as people have them, on disk: opened lazily, compared, converted and saved."""

from mloss.checkpoints.checkpoint import Checkpoint, Entry
from mloss.checkpoints.clip import image_tower, to_open_clip, to_transformers
from mloss.checkpoints.compatibility import check_compatible, check_finite
from mloss.checkpoints.model_names import in_model
from mloss.checkpoints.models import empty_model, load_model
from mloss.checkpoints.opening import open_checkpoint
from mloss.checkpoints.saving import save_checkpoint
from mloss.checkpoints.sources import as_source, in_working_dtypes

__all__ = [
    "Checkpoint",
    "Entry",
    "as_source",
    "check_compatible",
    "check_finite",
    "empty_model",
    "image_tower",
    "in_model",
    "in_working_dtypes",
    "load_model",
    "open_checkpoint",
    "save_checkpoint",
    "to_open_clip",
    "to_transformers",
]
