"""How deep in the network a parameter is, read from its name."""

from collections import defaultdict
from collections.abc import Iterable


def relative_depths(keys: Iterable[str]) -> dict[str, float]:
    """For each key the place of its block in its stack, from 0 (first) to 1 (last).

    The first number among the parts of a key is that of its block, and what stands
    before it names the stack: "model.layers.3.mlp.up_proj.weight" is in block 3 of
    "model.layers". Each tower of a network (text, image) has a stack of its own. What
    is in no block (embeddings, final norms, most heads) is at 0, and so is a stack of
    one block.
    """
    blocks = {key: _block(key) for key in keys}
    stacks: defaultdict[str, set[int]] = defaultdict(set)
    for stack, number in blocks.values():
        stacks[stack].add(number)
    places = {
        (stack, number): place / max(len(numbers) - 1, 1)
        for stack, numbers in stacks.items()
        for place, number in enumerate(sorted(numbers))
    }
    return {key: places[block] for key, block in blocks.items()}


def _block(key: str) -> tuple[str, int]:
    """The stack and the number of a key's block; what is in none is one by itself."""
    parts = key.split(".")
    for position, part in enumerate(parts):
        if part.isdecimal():
            return ".".join(["stack", *parts[:position]]), int(part)
    return "", 0
