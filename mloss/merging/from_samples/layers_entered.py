"""Which linear layers the output of a site's nodes enters."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial

import torch
from torch import Tensor, nn

from mloss.batches import Batch
from mloss.inference import called
from mloss.recording import visited
from mloss.sites import Site


def layers_entered(
    model: nn.Module, sites: Sequence[Site], example: Batch
) -> dict[str, tuple[str, ...]]:
    """Names of the nn.Linear whose input is a site's f(h), or f(h) up, by its layer.

    Found by value in one forward pass, in which every site is given random h (and up)
    of its own: on the example itself, nodes that are dead look alike. A layer is
    entered where its input equals what the site's activation makes of them. A site
    whose output goes elsewhere has none. Raises ValueError where two sites' outputs
    are equal even so, and where a site does not run with other numbers than its own.
    """
    drawn: dict[str, Tensor] = {}
    inputs: dict[str, Tensor] = {}

    def keep(name: str, entered: Tensor, _: object) -> None:
        # A copy, since a residual sum may work in place.
        inputs[name] = entered.clone()

    linear = [n for n, m in model.named_modules() if isinstance(m, nn.Linear)]
    with ExitStack() as stack:
        generator = torch.Generator().manual_seed(0)
        for name in dict.fromkeys(name for site in sites for name in _ends(site)):
            draw = partial(_draw, generator, drawn, name)
            handle = model.get_submodule(name).register_forward_hook(draw)
            stack.callback(handle.remove)
        stack.enter_context(visited(model, {n: partial(keep, n) for n in linear}))
        called(model, example)
    made = {site.layer: _made(site, drawn) for site in sites}
    return {
        layer: tuple(n for n, x in inputs.items() if _is_from(x, layer, made))
        for layer in made
    }


def _ends(site: Site) -> tuple[str, ...]:
    """The modules whose outputs are the site's h and, if it is gated, its up."""
    return tuple(filter(None, (site.norm or site.layer, site.up)))


def _draw(
    generator: torch.Generator,
    drawn: dict[str, Tensor],
    name: str,
    _module: nn.Module,
    _args: object,
    output: Tensor,
) -> Tensor:
    """Positive numbers instead of an output: of these activations lose the least."""
    draw = torch.randn(output.shape, generator=generator).abs().to(output)
    # A copy, since an activation may work in place.
    drawn[name] = draw.clone()
    return draw


def _made(site: Site, drawn: Mapping[str, Tensor]) -> Tensor:
    """What the site's activation makes of what was drawn."""
    if missing := [name for name in _ends(site) if name not in drawn]:
        raise ValueError(
            f"whether {missing[0]!r} runs depends on the hidden states: which layers "
            "its output enters is not known"
        )
    h, *up = (drawn[name] for name in _ends(site))
    value: Tensor = site.activation(h)
    return value * up[0] if up else value


def _is_from(entering: Tensor, layer: str, made: Mapping[str, Tensor]) -> bool:
    """Whether what enters a linear layer is the output of a site."""
    if not torch.equal(entering, made[layer]):
        return False
    if also := [n for n, x in made.items() if n != layer and torch.equal(x, entering)]:
        raise ValueError(
            f"the outputs of {layer!r} and {also[0]!r} cannot be told apart: which "
            "layer they enter is not known"
        )
    return True
