"""Definition 3.2 by automatic differentiation, on layers of the embedded network."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mloss.digits import load_digits_models
from paper_checks.record import Finding, How, Verdict
from paper_checks.registry import claim

NODE, IMAGES = 0, 8


@dataclass(frozen=True)
class Derivatives:
    """dh/dw of one node for every parameter w, before and after all w were moved."""

    before: dict[str, Tensor]
    after: dict[str, Tensor]

    def constant(self) -> dict[str, Tensor]:
        """Where the derivative is nonzero and did not change: the literal LCP."""
        return {
            name: (value != 0) & (value == self.after[name])
            for name, value in self.before.items()
        }


def derivatives(part: nn.Module, image: Tensor, *, seed: int) -> Derivatives:
    """Differentiate node NODE of the part's output, then move every parameter."""
    before = _gradient(part, image)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in part.parameters():
            step = torch.randn(
                parameter.shape, generator=generator, dtype=torch.float64
            )
            parameter.add_(0.1 * step)
    return Derivatives(before, after=_gradient(part, image))


@claim(
    "lcp-of-a-linear-layer",
    where="Definition 3.2",
    states="For a simple layer h = W x the LCP of h_i are the parameters in row i of W",
    recorded="confirmed",
)
def lcp_of_a_linear_layer(*, seed: int) -> Finding:
    """Differentiate a node of the stem, whose input is the image itself."""
    images = load_digits_models(seed=seed).unlabelled()[:IMAGES]
    as_defined, entries, zeros = True, 0, 0
    for image in images:
        lcp = derivatives(_stem(seed), image, seed=seed).constant()
        row = lcp["1.weight"][NODE]
        elsewhere = sum(int(found.sum()) for found in lcp.values()) - int(row.sum())
        lit = image.flatten() != 0
        # Nothing outside the row but the node's own bias.
        as_defined &= bool(
            (row == lit).all() and lcp["1.bias"][NODE] and elsewhere == 1
        )
        entries += len(lit)
        zeros += int((~lit).sum())
    return Finding(
        Verdict.CONFIRMED if as_defined else Verdict.REFUTED,
        found=f"the row and the node's bias, and nothing else, on {IMAGES} images; row "
        f"entries whose input is exactly zero ({zeros / entries:.0%} here) drop out, "
        "as their derivative is zero",
        uncertainty="none: equality to the bit after moving all parameters",
        how=(How.MEASURED,),
        truth="" if as_defined else "The LCP differs from the row and its bias.",
        numbers={"zero_inputs": zeros / entries},
    )


@claim(
    "lcp-determined-by-input-only",
    where="Definition 3.2, Figure 2",
    states="Within a deep model the derivative by row i of W_k is a constant "
    "determined by the input vector only",
    recorded="corrected",
)
def lcp_determined_by_input_only(*, seed: int) -> Finding:
    """Differentiate a node of the second block and move all parameters."""
    models = load_digits_models(seed=seed)
    image = models.unlabelled()[0]
    part, layer_input = _second_block(seed), {}

    def keep(_: nn.Module, args: tuple[Tensor, ...]) -> None:
        layer_input["x"] = args[0].detach()[0]

    part[-1].register_forward_pre_hook(keep)
    part(image[None])
    inputs = layer_input["x"]
    found = derivatives(part, image, seed=seed)
    last = f"{len(part) - 1}"
    by_row = found.before[f"{last}.weight"][NODE]
    matches_layer_input = bool(torch.equal(by_row, inputs))
    constant = {name: int(mask.sum()) for name, mask in found.constant().items()}
    row_constant = constant[f"{last}.weight"]
    total = sum(constant.values())
    if row_constant == len(inputs):
        verdict = Verdict.CONFIRMED
    else:
        verdict = Verdict.CORRECTED if matches_layer_input else Verdict.REFUTED
    upstream = sum(int((value != 0).sum()) for value in found.before.values())
    return Finding(
        verdict,
        found=f"with the image as input, {row_constant} of {len(inputs)} derivatives "
        f"by the row stay when all parameters move; {total} of the {upstream} "
        "parameters with a nonzero derivative stays, the node's bias; the derivatives "
        f"by the row {'equal' if matches_layer_input else 'differ from'} the layer's "
        "input",
        uncertainty="none: equality to the bit",
        how=(How.MEASURED,),
        truth="Beyond the first layer the derivative by row i is the layer's own "
        "input, which depends on the earlier layers' parameters: 'input vector' has to "
        "mean the layer's input x_{k-1}, and the bias belongs to the set."
        if verdict != Verdict.CONFIRMED
        else "",
        numbers={"constant_in_row": row_constant, "constant": total},
    )


def _gradient(part: nn.Module, image: Tensor) -> dict[str, Tensor]:
    names, parameters = zip(*part.named_parameters(), strict=True)
    node = part(image[None])[0, NODE]
    return dict(zip(names, torch.autograd.grad(node, parameters), strict=True))


def _stem(seed: int) -> nn.Sequential:
    encoder = load_digits_models(seed=seed).encoder()
    return nn.Sequential(nn.Flatten(), encoder.stem)


def _second_block(seed: int) -> nn.Sequential:
    """The embedded network up to the pre-activations of its second block."""
    encoder = load_digits_models(seed=seed).encoder()
    second = encoder.get_submodule("blocks.1")
    return nn.Sequential(
        nn.Flatten(),
        encoder.stem,
        encoder.get_submodule("blocks.0"),
        second.get_submodule("norm"),
        second.get_submodule("fc1"),
    )
