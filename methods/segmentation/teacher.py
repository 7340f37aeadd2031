"""The promptable teacher as a label source: a network that was trained here, or SAM-B.

On disk: ``source.json`` with what the network is built from, and ``teacher.safetensors`` with its weights.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Self

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from bench.api import AugmentedBatch, BaseConfig, Images, LabelSource, Split, Task, seed_for
from bench.kit.teachers.reading import read_state
from methods.segmentation import networks, sam
from methods.segmentation.config import POINTS, TeacherConfig
from methods.segmentation.masks import TestMasks, channels_of, click_maps, exact_shares
from methods.segmentation.train import train

_WEIGHTS = "teacher.safetensors"


class MaskLabels(LabelSource):
    """A promptable ``model`` that answers every view with the logits of its mask, row by row."""

    model: nn.Module

    def channels(self, images: Images) -> Tensor:
        return channels_of({POINTS: images.extras[POINTS]}, *images.pixels.shape[2:])

    @torch.no_grad()
    def soft_labels(self, views: AugmentedBatch, step: int) -> Tensor:
        return self.model(views.pixels, click_maps(views)).flatten(1).float()  # type: ignore[no-any-return]

    def measure(self, test: Split, size: int, device: torch.device) -> dict[str, float]:
        return {"mean_iou": TestMasks(test, size, device).of_labels(self)}


class MaskNetwork(BaseConfig):
    """The settings to build a promptable network from."""

    arch: str  # promptable-wN, or SAM's
    image_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @classmethod
    def of(cls, config: TeacherConfig, task: Task) -> Self:
        """Describe the teacher that is configured for the data set of a task."""
        info, arch = task.dataset, config.arch if config.file is None else sam.NAME
        return cls(arch=arch, image_size=info.image_size, mean=info.mean, std=info.std)

    def build(self) -> nn.Module:
        """Build it with random weights from torch's global stream."""
        if self.arch == sam.NAME:
            return sam.SamB()
        return networks.build(self.arch, self.image_size, self.mean, self.std)


class TeacherMasks(MaskLabels):
    """The masks of a teacher. Counted are all its weights."""

    kind: ClassVar[str] = "mask-teacher"

    def __init__(self, network: MaskNetwork, weights: Mapping[str, Tensor], device: torch.device):
        self.network, model = network, network.build()
        model.load_state_dict(weights)
        model.eval().requires_grad_(False)
        self.model = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def parameters(self) -> int:
        return sum(p.numel() for p in self.model.parameters())

    def save(self, folder: Path) -> None:
        facts = {"kind": self.kind, "network": self.network.model_dump(mode="json")}
        (folder / "source.json").write_text(json.dumps(facts) + "\n", encoding="utf-8")
        save_file(weights_of(self.model), folder / _WEIGHTS)

    @classmethod
    def load(cls, folder: Path, device: torch.device) -> Self:
        facts = json.loads((folder / "source.json").read_text(encoding="utf-8"))
        return cls(MaskNetwork(**facts["network"]), load_file(folder / _WEIGHTS), device)


def make_teacher(config: TeacherConfig, task: Task) -> dict[str, Tensor]:
    """Return the weights of the configured teacher: of SAM-B from its file, or trained on exact masks. Resumable."""
    network = MaskNetwork.of(config, task)
    if config.file is not None:
        file, official = Path(config.file), sam.SamB()
        sam.load_official(official, read_state(file), file)
        return weights_of(official)
    seed = seed_for("promptable-teacher", config.seed)
    torch.manual_seed(seed)
    model = network.build().to(task.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    train(model, task, config.training, exact_shares, seed)
    return weights_of(model)


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """Return the state of a network as contiguous tensors."""
    return {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
