"""Checkpoints that others trained: state dicts, plain or wrapped, read without unpickling code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from bench.errors import UserError

_WRAPPERS = ("model", "state_dict", "model_state_dict")  # RDED, torchvision references, timm


def read_state(path: Path) -> dict[str, Tensor]:
    """Read the state dict in a file: safetensors, or torch.save'd and loaded with ``weights_only=True``.

    It may be under one of the usual keys and have DataParallel's ``module.`` in front of every name.

    Raises:
        UserError: the file holds no state dict.
    """
    try:
        if path.suffix == ".safetensors":
            found: Any = load_file(path)
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, SafetensorError) as error:
        raise UserError(f"the teacher file {path} can't be read: {str(error).splitlines()[0]}") from None
    except Exception:  # the restricted unpickler has no error of its own for what is not a pickle at all
        raise UserError(
            f"the teacher file {path} is no plain checkpoint: only tensors are read and pickled code is never run; "
            "save the model's state_dict() with torch.save or safetensors"
        ) from None
    for key in _WRAPPERS:
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise UserError(f"the teacher file {path} holds no state dict (names → tensors), plain or under 'model'")
    return {name.removeprefix("module."): tensor for name, tensor in found.items()}


def load_into(net: nn.Module, state: dict[str, Tensor], classes: int, path: Path) -> None:
    """Load a state dict; a head of more classes is cut to its first ``classes`` rows (RDED's ``load_model``).

    Raises:
        UserError: the names or shapes are another architecture's.
    """
    wanted = {name: target.shape for name, target in net.state_dict().items()}
    cut = {}
    for name, tensor in state.items():
        head = wanted.get(name) == (classes, *tensor.shape[1:]) and tensor.ndim > 0
        cut[name] = tensor[:classes] if head else tensor
    try:
        net.load_state_dict(cut)
    except RuntimeError as error:
        first = [line.strip() for line in str(error).splitlines() if line.strip()][1]
        raise UserError(f"the teacher file {path} is of another architecture: {first[:150]}") from None
