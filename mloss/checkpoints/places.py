"""Where a weight that goes by another name lies in a base."""

from collections.abc import Callable

from mloss.checkpoints.checkpoint import Checkpoint
from mloss.checkpoints.model_names import translator
from mloss.checkpoints.models import empty_model


def place_in(base: Checkpoint) -> Callable[[str], str | None]:
    """From any name of a weight to the base's own on disk, or None if it has none.

    Adapters and state dicts name weights as the running model does, which may differ
    from the names on disk. They also begin at the whole model where the base may be
    its main part alone (`bert.` in a classifier), or the other way round.
    """
    if base.layout != "transformers":
        return lambda name: name if name in base else None
    translate = translator(empty_model(base))
    on_disk = {translate(name): name for name in base}
    return lambda name: name if name in base else on_disk.get(translate(name))
