"""Checkpoints of unfinished work: one safetensors file, written atomically, checked when read.

A loop that draws everything random from counter-based streams needs no more than its tensors and a step to go on
to the same bits.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

_DIGEST = 32  # bytes of SHA-256 in front of the file


class Checkpoint:
    """One checkpoint in a folder; a newer one takes the place of the older."""

    def __init__(self, folder: Path, name: str = "checkpoint"):
        self.path = folder / f"{name}.ckpt"

    def save(self, tensors: dict[str, Tensor], **facts: Any) -> None:
        """Keep tensors and plain JSON facts."""
        plain = {key: tensor.detach().contiguous().cpu() for key, tensor in tensors.items()}
        blob = save(plain, metadata={"facts": json.dumps(facts)})
        temporary = self.path.with_suffix(".part")
        with temporary.open("wb") as stream:
            stream.write(hashlib.sha256(blob).digest() + blob)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(self.path)

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """What was kept last; None where there is nothing, or nothing whole."""
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return None
        blob = content[_DIGEST:]
        if hashlib.sha256(blob).digest() != content[:_DIGEST]:
            return None
        try:
            header = json.loads(blob[8 : 8 + int.from_bytes(blob[:8], "little")])
            return load(blob), json.loads(header["__metadata__"]["facts"])
        except (SafetensorError, KeyError, ValueError):
            return None


def training_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Everything a training loop changes, as flat tensors: trainable parameters, buffers, optimizer moments."""
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    buffers = {name for name, _ in model.named_buffers()}
    tensors = {f"model.{name}": t for name, t in model.state_dict().items() if name in trained | buffers}
    for index, moments in optimizer.state_dict()["state"].items():
        for key, value in moments.items():
            tensors[f"optimizer.{index}.{key}"] = torch.as_tensor(value)
    return tensors


def restore_training(model: nn.Module, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put back what :func:`training_state` took."""
    weights = {name.removeprefix("model."): t for name, t in tensors.items() if name.startswith("model.")}
    model.load_state_dict(weights, strict=False)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".", 2)
            state.setdefault(int(index), {})[key] = _laid_out_as(parameters[int(index)], tensor)
    if state:
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _laid_out_as(parameter: Tensor, moment: Tensor) -> Tensor:
    # Fused optimizers walk parameter, gradient and moments by address: a moment that comes back from the disk in
    # another memory format than its parameter's would be applied to the wrong weights.
    if moment.shape != parameter.shape:
        return moment
    return torch.empty_like(parameter, dtype=moment.dtype).copy_(moment)
