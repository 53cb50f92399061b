"""What the estimators need of an array library; numpy here, torch beside it."""

from dataclasses import dataclass, field
from importlib import import_module
from types import ModuleType
from typing import Any, Protocol, TypeAlias, cast

import numpy as np
import scipy.special
from numpy.random import SeedSequence

from simulate.activations import KNOWN, Activation, Array

Block: TypeAlias = Any  # float64 array of the backend's library

BACKENDS = ("numpy", "torch")


class Stream(Protocol):
    """A source of random blocks of a given shape."""

    def random(self, size: tuple[int, ...]) -> Block:
        """Uniform on [0, 1)."""

    def standard_normal(self, size: tuple[int, ...]) -> Block:
        """Normal with mean 0 and variance 1."""


class Backend(Protocol):
    """An array library on a device.

    Of its modules `xp` and `special` only those functions are used that numpy and
    torch give one name and one meaning.
    """

    @property
    def xp(self) -> ModuleType:
        """Functions of arrays."""

    @property
    def special(self) -> ModuleType:
        """ndtr and ndtri."""

    @property
    def block(self) -> int:
        """How many pre-activations to hold at once, a power of 2."""

    @property
    def named(self) -> dict[str, Activation]:
        """The activations by name."""

    def stream(self, seed: SeedSequence) -> Stream:
        """Random numbers that depend on nothing but the seed."""

    def asarray(self, values: Any) -> Block:
        """Values as a float64 array on the device."""

    def numbers(self, values: Block) -> Array:
        """Values back as a numpy array."""


@dataclass(frozen=True)
class NumpyBackend:
    """numpy on the CPU, in blocks that stay inside the second-level cache."""

    xp: ModuleType = np
    special: ModuleType = scipy.special
    block: int = 2**14
    named: dict[str, Activation] = field(default_factory=lambda: KNOWN)

    def stream(self, seed: SeedSequence) -> Stream:
        """numpy's default generator, started at the seed."""
        return cast("Stream", np.random.default_rng(seed))

    def asarray(self, values: Any) -> Array:
        """Values as a float64 array."""
        return np.asarray(values, dtype=np.float64)

    def numbers(self, values: Block) -> Array:
        """The values themselves."""
        return np.asarray(values)


NUMPY = NumpyBackend()


def backend_on(name: str, device: str) -> Backend:
    """The backend of that name on that device; torch is imported when it is asked for.

    Raises ValueError for an unknown name and for a device that is not there.
    """
    if name == "numpy":
        if device != "cpu":
            raise ValueError(
                f"device must be 'cpu' for backend 'numpy', got {device!r}"
            )
        return NUMPY
    if name == "torch":
        on_device = import_module("simulate.torch_backend").torch_backend_on
        return cast("Backend", on_device(device))
    raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, got {name!r}")
