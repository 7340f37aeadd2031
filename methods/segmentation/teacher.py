"""The promptable teacher as a label source: a stand-in that was trained here, or SAM-B.

On disk: ``source.json`` with what the network is built from, and ``teacher.safetensors`` with its weights.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar, Self

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from bench.api import BaseConfig, LabelSource, Task
from bench.kit.segmentation import networks, sam
from bench.kit.segmentation.masks import click_plane, exact_shares
from bench.kit.teachers.foreign import read_state
from bench.kit.views import AugmentedBatch
from methods.promptable import MaskTraining
from methods.segmentation.train import train

_WEIGHTS = "teacher.safetensors"


class MaskNetwork(BaseConfig):
    """What must be known to build a promptable network again."""

    arch: str  # promptable-wN, or SAM's
    image_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def build(self) -> nn.Module:
        """With random weights, from torch's global stream."""
        if self.arch == sam.NAME:
            return sam.SamB()
        return networks.build(self.arch, self.image_size, self.mean, self.std)


class TeacherMasks(LabelSource):
    """A promptable network that answers every view with the logits of its mask. Counted are all its weights."""

    kind: ClassVar[str] = "mask-teacher"
    dense: ClassVar[bool] = True

    def __init__(self, network: MaskNetwork, model: nn.Module):
        self.network, self.model = network, model

    @classmethod
    def of(cls, arch: str | None, task: Task) -> Self:
        """The source that a prepared network makes; ``arch`` None: SAM-B."""
        info = task.dataset
        network = MaskNetwork(arch=arch or sam.NAME, image_size=info.image_size, mean=info.mean, std=info.std)
        model = network.build()
        model.load_state_dict(task.prepared)
        return cls(network, ready(model, task.device))

    @torch.no_grad()
    def soft_labels(self, views: AugmentedBatch, step: int) -> Tensor:
        return self.model(views.pixels, click_plane(views)).flatten(1).float()  # type: ignore[no-any-return]

    def parameters(self) -> int:
        return sum(p.numel() for p in self.model.parameters())

    def save(self, folder: Path) -> None:
        facts = {"kind": self.kind, "network": self.network.model_dump(mode="json")}
        (folder / "source.json").write_text(json.dumps(facts) + "\n", encoding="utf-8")
        save_file({name: t.contiguous() for name, t in self.model.state_dict().items()}, folder / _WEIGHTS)

    @classmethod
    def load(cls, folder: Path, device: torch.device) -> Self:
        facts = json.loads((folder / "source.json").read_text(encoding="utf-8"))
        network = MaskNetwork(**facts["network"])
        model = network.build()
        model.load_state_dict(load_file(folder / _WEIGHTS))
        return cls(network, ready(model, device))


def ready(model: nn.Module, device: torch.device) -> nn.Module:
    """Frozen, in eval mode, on the device."""
    return model.eval().requires_grad_(False).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def train_teacher(arch: str, recipe: MaskTraining, task: Task, seed: int) -> dict[str, Tensor]:
    """Train a promptable network on the exact masks of the training split. Resumable.

    Args:
        seed: of its first weights and its views.
    """
    info = task.dataset
    network = MaskNetwork(arch=arch, image_size=info.image_size, mean=info.mean, std=info.std)
    torch.manual_seed(seed)
    model = network.build().to(task.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    train(model, task, recipe, exact_shares, seed, "teacher")
    return dict(model.state_dict())


def take_over(file: Path) -> dict[str, Tensor]:
    """SAM-B with the weights of a file in segment-anything's layout.

    Raises:
        UserError: the file can't be read or holds something else.
    """
    model = sam.SamB()
    sam.load_official(model, read_state(file), file)
    return model.state_dict()
