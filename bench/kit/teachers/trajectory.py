"""A training trajectory on disk: ``teacher.json`` and one safetensors file per kept epoch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from bench.api import NetworkSpec
from bench.kit.models import Classifier, build

CHECK_IMAGES = 1000  # held-out images on which a teacher shows that it is what its record says


class Network(NetworkSpec):
    """A description that can be built."""

    def build(self) -> Classifier:
        """Build it with random weights, from torch's global stream."""
        return build(self.arch, self.classes, self.image_size, self.mean, self.std)

    def with_weights(self, weights: Path, device: torch.device) -> Classifier:
        """Build it with the weights of a safetensors file; frozen, in eval mode."""
        return self.with_state({name: t.float() for name, t in load_file(weights).items()}, device)

    def with_state(self, state: dict[str, Tensor], device: torch.device) -> Classifier:
        """Build it with the weights of a state dict; frozen, in eval mode."""
        model = self.build()
        model.net.load_state_dict(state)
        model.eval().requires_grad_(False)
        return model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


@dataclass(frozen=True)
class Trajectory:
    """Checkpoints of one architecture at several epochs, each with its accuracy on the test images.

    ``epochs`` ascend; ``accuracy`` are fractions; ``accuracy_check`` is the last checkpoint's accuracy on the first
    ``CHECK_IMAGES`` evenly spread test images.
    """

    folder: Path
    network: Network
    order_hash: str
    epochs: tuple[int, ...]
    accuracy: dict[int, float]
    accuracy_check: float
    device: torch.device

    @classmethod
    def load(cls, folder: Path, device: torch.device) -> Trajectory:
        """Read what :func:`save` wrote."""
        facts = json.loads((folder / "teacher.json").read_text(encoding="utf-8"))
        facts["network"], facts["epochs"] = Network(**facts["network"]), tuple(facts["epochs"])
        facts["accuracy"] = {int(epoch): top1 for epoch, top1 in facts["accuracy"].items()}
        return cls(folder=folder, device=device, **facts)

    def model(self, epoch: int | None = None) -> Classifier:
        """Return the network at a kept epoch (default: the last), frozen, in eval mode, on the device."""
        return _frozen(self.network, self.weights_file(epoch), self.device)

    def weights_file(self, epoch: int | None = None) -> Path:
        """Return the safetensors file of a kept epoch (default: the last)."""
        return self.folder / file_name(self.epochs[-1] if epoch is None else epoch)


def file_name(epoch: int) -> str:
    """``epoch-010.safetensors``."""
    return f"epoch-{epoch:03d}.safetensors"


def save(
    folder: Path,
    network: Network,
    order_hash: str,
    states: dict[int, dict[str, Tensor]],
    accuracy: dict[int, float],
    accuracy_check: float,
) -> None:
    """Write a trajectory; ``states`` maps a kept epoch to the network's state dict."""
    for epoch, state in states.items():
        save_file({key: t.contiguous() for key, t in state.items()}, folder / file_name(epoch))
    facts = {
        "network": network.model_dump(mode="json"),
        "order_hash": order_hash,
        "epochs": sorted(states),
        "accuracy": accuracy,
        "accuracy_check": accuracy_check,
    }
    (folder / "teacher.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


@lru_cache(maxsize=24)  # nine of a trajectory and a few more: cells of one process share them
def _frozen(network: Network, weights: Path, device: torch.device) -> Classifier:
    return network.with_weights(weights, device)
