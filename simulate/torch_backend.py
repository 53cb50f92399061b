"""The estimators' array library in torch, on the CPU or a GPU."""

from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import torch
from numpy.random import SeedSequence
from torch.nn import functional

from simulate.activations import Activation, Array

NAMED: dict[str, Any] = {
    "relu": functional.relu,
    "leaky_relu": functional.leaky_relu,
    "prelu": lambda x: functional.leaky_relu(x, 0.25),
    "relu6": functional.relu6,
    "hard_swish": functional.hardswish,
    "elu": functional.elu,
    "selu": functional.selu,
    "gelu": functional.gelu,
    "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
    "silu": functional.silu,
    # The threshold up to which log(1 + exp(x)) is not x to double precision.
    "softplus": lambda x: functional.softplus(x, threshold=40.0),
    "mish": lambda x: x * torch.tanh(functional.softplus(x, threshold=40.0)),
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "identity": lambda x: x,
}


@dataclass(frozen=True)
class TorchStream:
    """Random float64 blocks from one torch generator."""

    generator: torch.Generator

    def random(self, size: tuple[int, ...]) -> torch.Tensor:
        """Uniform on [0, 1)."""
        return torch.rand(
            size,
            generator=self.generator,
            dtype=torch.float64,
            device=self.generator.device,
        )

    def standard_normal(self, size: tuple[int, ...]) -> torch.Tensor:
        """Normal with mean 0 and variance 1."""
        return torch.randn(
            size,
            generator=self.generator,
            dtype=torch.float64,
            device=self.generator.device,
        )


@dataclass(frozen=True)
class TorchBackend:
    """torch on a device, in blocks of `block` pre-activations."""

    device: torch.device
    block: int
    xp: ModuleType = torch
    special: ModuleType = torch.special
    named: dict[str, Activation] = field(default_factory=lambda: NAMED)

    def stream(self, seed: SeedSequence) -> TorchStream:
        """A generator on the device, started at the seed."""
        word = int(seed.generate_state(1, "uint64")[0] >> 1)
        return TorchStream(torch.Generator(self.device).manual_seed(word))

    def asarray(self, values: Any) -> torch.Tensor:
        """Values as a float64 tensor on the device."""
        return torch.asarray(values, dtype=torch.float64, device=self.device)

    def numbers(self, values: torch.Tensor) -> Array:
        """Values back as a numpy array."""
        found: Array = values.cpu().numpy()
        return found


def torch_backend_on(device: str) -> TorchBackend:
    """Torch on that device; ValueError when there is none such here."""
    try:
        found = torch.device(device)
        torch.zeros(1, dtype=torch.float64, device=found).item()
    except (
        RuntimeError,  # an unknown name; no such device or driver here
        AssertionError,  # a torch that was built without this kind
        ImportError,  # a kind that has a package of its own
        TypeError,  # not a name; a kind without float64, as Apple's
    ) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"device {device!r} is not available: {reason}") from None
    # A CPU works best in cache; a GPU needs blocks large enough to fill it.
    return TorchBackend(found, 2**14 if found.type == "cpu" else 2**24)
