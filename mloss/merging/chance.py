"""Random numbers for each entry of a state, whatever order entries are looked up in."""

from collections.abc import Callable
from hashlib import blake2b

import torch


def chance_by_entry(generator: torch.Generator) -> Callable[[str], torch.Generator]:
    """Give every key a generator of its own, seeded by one draw from `generator`.

    The same key gets the same numbers each time, so that an entry can be computed
    again, alone or in another order. Raises TypeError for another kind of generator.
    """
    if not isinstance(generator, torch.Generator):
        raise TypeError(
            f"generator must be a torch.Generator, got {type(generator).__name__}"
        )
    device = generator.device
    draw = torch.randint(2**62, (), generator=generator, device=device).item()

    def of(key: str) -> torch.Generator:
        digest = blake2b(f"{draw} {key}".encode(), digest_size=8).digest()
        seed = int.from_bytes(digest, "little", signed=True)
        return torch.Generator(device).manual_seed(seed)

    return of
