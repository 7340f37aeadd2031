"""Low-rank updates: the choice of weights, their parametrization, and merging.

A weight W becomes W + alpha/rank * view(B A), in one of three conventions for a k x k convolution:

- ``loralib`` (microsoft/LoRA, ``loralib.Conv2d``): A (r k, in k), B (out k, r k);
- ``peft`` (an r-channel k x k convolution, then 1 x 1, as peft and LoCon do): A (r, in k k), B (out, r);
- ``flattened`` (the loralib view with an inner rank of r): A (r, in k), B (out k, r).

They are all the product of two matrices viewed as the weight, and the same for k = 1 and for linear layers.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from bench.errors import UserError
from methods.hello.config import Convention, Layers

# name of a convolution, is it 3 x 3 -> has it an update? Names are open_clip's ModifiedResNet's: the stem's
# convolutions have no parent, down-samples are called that.
_RULES: dict[Layers, Callable[[str, bool], bool]] = {
    "3x3": lambda name, is_3x3: is_3x3,
    "3x3-blocks": lambda name, is_3x3: is_3x3 and "." in name,
    "all": lambda name, is_3x3: True,
    "no-downsample": lambda name, is_3x3: ".downsample." not in name,
    "no-stem": lambda name, is_3x3: "." in name,
    "blocks": lambda name, is_3x3: "." in name and ".downsample." not in name,
    "layers-3-4": lambda name, is_3x3: name.startswith(("layer3.", "layer4.")),
}


def select(tower: nn.Module, layers: Layers, attention_pool: bool) -> list[str]:
    """Return the weights of an image tower to adapt, by qualified name.

    A patch embedding (kernel = stride > 1) is never adapted: loralib's factors for it would outweigh all
    others. A tower without a convolution that ``layers`` means, such as a ViT, has the weights of all its
    linear layers adapted instead, those of attention included; the paper has no such tower.

    Raises:
        UserError: the attention pool is asked for and the tower has none.
    """
    modules = [(name, module) for name, module in tower.named_modules() if not name.startswith("attnpool")]
    convs = [(name, m) for name, m in modules if isinstance(m, nn.Conv2d) and not _is_patch_embedding(m)]
    chosen = [f"{name}.weight" for name, conv in convs if _RULES[layers](name, conv.kernel_size == (3, 3))]
    if not chosen:
        for name, module in modules:
            if isinstance(module, nn.MultiheadAttention) and module.in_proj_weight is not None:
                chosen.append(f"{name}.in_proj_weight")
            elif isinstance(module, nn.Linear):
                chosen.append(f"{name}.weight")
    if attention_pool:
        if not hasattr(tower, "attnpool"):
            raise UserError("attention_pool: this CLIP's tower has none; expected a ResNet's, e.g. RN50")
        chosen += [f"attnpool.{part}_proj.weight" for part in "qkvc"]
    return chosen


def _is_patch_embedding(conv: nn.Conv2d) -> bool:
    return conv.kernel_size == conv.stride != (1, 1)


def factor_shapes(weight: Sequence[int], rank: int, convention: Convention) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the shapes of A and B for a weight of shape (out, in) or (out, in, k, k)."""
    out, inner, high, wide = (*weight, 1, 1)[:4]
    if convention == "peft":
        return (rank, inner * high * wide), (out, rank)
    through = rank * high if convention == "loralib" else rank
    return (through, inner * wide), (out * high, through)


def stored_shapes(
    weights: Mapping[str, Sequence[int]], rank: int, convention: Convention
) -> dict[str, tuple[int, ...]]:
    """Return the factors of the updates of weights by their stored names, ``tower.conv1.weight.A``."""
    return {
        f"{name}.{factor}": shape
        for name, weight in weights.items()
        for factor, shape in zip("AB", factor_shapes(weight, rank, convention), strict=True)
    }


class LowRank(nn.Module):
    """Parametrization W -> W + gain * alpha/rank * view(B A); A starts Kaiming-uniform, B zero (loralib).

    ``gain`` (out,): where W is a convolution with a frozen batch norm folded in, the norm's factor on each
    output channel, by which the update must be folded as well.
    """

    rows: Tensor  # what each row of B is multiplied by

    def __init__(
        self,
        weight: Tensor,
        rank: int,
        convention: Convention,
        alpha: float | None,
        gain: Tensor | None,
        generator: torch.Generator,
    ):
        super().__init__()
        a_shape, b_shape = factor_shapes(weight.shape, rank, convention)
        bound = 1 / math.sqrt(a_shape[1])  # Kaiming-uniform with a = sqrt(5)
        drawn = torch.empty(a_shape).uniform_(-bound, bound, generator=generator)
        self.A = nn.Parameter(drawn.to(weight.device))
        self.B = nn.Parameter(torch.zeros(b_shape, device=weight.device))
        scale = (torch.ones(len(weight)) if gain is None else gain) * ((alpha or rank) / rank)
        rows = scale.repeat_interleave(b_shape[0] // len(weight))[:, None]
        self.register_buffer("rows", rows.to(weight.device), persistent=False)

    def forward(self, weight: Tensor) -> Tensor:
        flat = weight.reshape(len(self.B), self.A.shape[1])
        return torch.addmm(flat, self.B * self.rows, self.A).view(weight.shape)


def attach(
    model: nn.Module,
    weights: Iterable[str],
    rank: int,
    convention: Convention,
    alpha: float | None,
    gains: dict[str, Tensor],
    generator: torch.Generator,
) -> None:
    """Put trainable updates on these weights, in place; ``gains`` by the weight's name, where it has one."""
    for name in weights:
        owner, _, parameter = name.rpartition(".")
        low_rank = LowRank(model.get_parameter(name), rank, convention, alpha, gains.get(name), generator)
        parametrize.register_parametrization(model.get_submodule(owner), parameter, low_rank, unsafe=True)


def adapters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return everything trained in a model by the names under which it is stored, e.g. ``tower.conv1.weight.A``."""
    trained = ((name, p) for name, p in model.named_parameters() if p.requires_grad)
    return {re.sub(r"\.parametrizations\.(\w+)\.0\.", r".\1.", name): p for name, p in trained}


@torch.no_grad()
def restore(wanted: Mapping[str, Tensor], stored: Mapping[str, Tensor], base: str) -> None:
    """Copy stored tensors, by name, into those of a model that was built for them on the frozen backbone ``base``.

    Raises:
        UserError: names or shapes differ.
    """
    if {name: t.shape for name, t in wanted.items()} != {name: t.shape for name, t in stored.items()}:
        raise UserError(
            f"the stored adapters do not have the names and shapes that {base!r} and the stored settings ask for; "
            "make the labels again (--force label)"
        )
    for name, tensor in wanted.items():
        tensor.copy_(stored[name])


@torch.no_grad()
def merge(model: nn.Module) -> None:
    """Turn every update into a part of its weight, in place, and freeze the model."""
    for module in list(model.modules()):
        if parametrize.is_parametrized(module):
            for name in list(module.parametrizations):  # type: ignore[arg-type]
                parametrize.remove_parametrizations(module, name, leave_parametrized=True)
    model.requires_grad_(False)
