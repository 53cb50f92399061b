"""Parameters that several keys of a state share."""

from torch import nn


def first_names(model: nn.Module) -> dict[str, str]:
    """Map the key of every parameter to the first key of the same parameter.

    A key stands for itself unless the model ties it to an earlier one.
    """
    first: dict[int, str] = {}
    return {
        key: first.setdefault(id(parameter), key)
        for key, parameter in model.named_parameters(remove_duplicate=False)
    }
