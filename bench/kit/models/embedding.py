"""Features of classifiers."""

from __future__ import annotations

from torch import Tensor, nn


def embed(model: nn.Module, pixels: Tensor) -> Tensor:
    """Return what a network's last linear layer takes, (B, F), with its gradient.

    Args:
        model: a classifier, whose last linear layer is its head.
        pixels: float (B, 3, S, S) in [0, 1].
    """
    head = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    taken: list[Tensor] = []
    with head.register_forward_pre_hook(lambda _, inputs: taken.append(inputs[0])):
        model(pixels)
    return taken[0].flatten(1)
