"""The penultimate features of a network."""

from __future__ import annotations

from torch import Tensor, nn


def embed(model: nn.Module, pixels: Tensor) -> Tensor:
    """Return what a classifier's last linear layer, its head, takes of ``pixels`` in [0, 1], (B, F), with gradient."""
    taken: list[Tensor] = []
    with _linear(model)[-1].register_forward_pre_hook(lambda _, inputs: taken.append(inputs[0])):
        model(pixels)
    return taken[0].flatten(1)


def penultimate(net: nn.Module, pixels: Tensor, classes: int) -> tuple[Tensor, nn.Linear] | None:
    """Return what the last linear layer of a network takes in (B, D), and this layer; None: it does not end in one."""
    layers = _linear(net)
    return (embed(net, pixels), layers[-1]) if layers and layers[-1].out_features == classes else None


def _linear(net: nn.Module) -> list[nn.Linear]:
    return [module for module in net.modules() if isinstance(module, nn.Linear)]
