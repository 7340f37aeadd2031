"""The online teacher as a label source: it labels any view and counts with its own weights (RDED)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from bench.api import LabelSource
from bench.api.stored import precision as packing
from bench.kit.labels.quantise import State, quantise, restore
from bench.kit.models import Classifier
from bench.kit.models.features import penultimate
from bench.kit.teachers.trajectory import Network, Trajectory
from bench.kit.views import AugmentedBatch

Precision = Literal["fp32", "fp16", "int8", "int4"]

_WEIGHTS = "teacher.safetensors"
_SCALE = ".scale"  # behind the name of an int8 tensor; no parameter has another below it


class OnlineTeacher(LabelSource):
    """The last checkpoint of a trajectory, answering every view in fp32.

    Its weights count as they are stored, in ``precision``; it answers with what comes back from there.
    """

    kind: ClassVar[str] = "teacher"

    def __init__(self, network: Network, model: Classifier, stored: State | None = None, precision: Precision = "fp32"):
        """Take a network, its model, and the weights as ``stored`` where that is not as the model has them."""
        self.network, self.model, self.stored, self.precision = network, model, stored, precision

    @classmethod
    def of(cls, teacher: Trajectory, precision: Precision = "fp32") -> Self:
        """Make the source of a trajectory's last checkpoint, stored in a precision of :func:`rounded`."""
        if precision == "fp32":
            return cls(teacher.network, teacher.model())
        state = rounded(load_file(teacher.weights_file()), precision)
        weights = restored(state, teacher.network)
        return cls(teacher.network, teacher.network.with_state(weights, teacher.device), state, precision)

    @torch.no_grad()
    def soft_labels(self, views: AugmentedBatch, step: int) -> Tensor:
        return self.model(views.pixels)  # type: ignore[no-any-return]

    @torch.no_grad()
    def features(self, views: AugmentedBatch, step: int) -> tuple[Tensor, Tensor, Tensor] | None:
        if (found := penultimate(self.model, views.pixels, self.network.classes)) is None:
            return None
        features, head = found
        return features, head.weight, head.weight.new_zeros(len(head.weight)) if head.bias is None else head.bias

    def parameters(self) -> int:
        return sum(p.numel() for p in self.model.net.parameters())

    def save(self, folder: Path) -> None:
        facts: dict[str, Any] = {"kind": self.kind, "network": self.network.model_dump(mode="json")}
        if self.stored is not None:
            facts["precision"] = self.precision
        (folder / "source.json").write_text(json.dumps(facts) + "\n", encoding="utf-8")
        state = self.model.net.state_dict() if self.stored is None else self.stored
        save_file({name: t.contiguous() for name, t in state.items()}, folder / _WEIGHTS)

    @classmethod
    def load(cls, folder: Path, device: torch.device) -> Self:
        facts: dict[str, Any] = json.loads((folder / "source.json").read_text(encoding="utf-8"))
        network = Network(**facts["network"])
        if "precision" not in facts:
            return cls(network, network.with_weights(folder / _WEIGHTS, device))
        state = load_file(folder / _WEIGHTS)
        return cls(network, network.with_state(restored(state, network), device), state, facts["precision"])


def rounded(state: State, precision: Precision) -> State:
    """Round a state dict to fp16, int8 or int4.

    int8 is symmetric: a tensor of two or more axes becomes its scales (O,) in fp32, one for each place on its first
    axis, and whole numbers from -127 to 127; int4 that of :func:`quantise`. The rest is fp16. Integers stay.
    """
    largest, made = torch.finfo(torch.float16).max, {}
    for name, tensor in state.items():
        if not tensor.is_floating_point():
            made[name] = tensor
        elif precision == "int4" and tensor.ndim >= 2:
            made[name], made[name + _SCALE] = quantise(tensor, packing.Precision("int4"))
        elif precision == "int8" and tensor.ndim >= 2:
            weights = tensor.float()
            scale = weights.flatten(1).abs().amax(1) / 127
            steps = scale.clamp(min=torch.finfo(torch.float32).tiny).view(-1, *[1] * (tensor.ndim - 1))
            made[name], made[name + _SCALE] = (weights / steps).round().clamp(-127, 127).to(torch.int8), scale
        else:
            made[name] = tensor.float().clamp(-largest, largest).half()
    return made


def restored(state: State, network: Network) -> State:
    """Return the fp32 state dict that :func:`rounded` stands for."""
    made = {}
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in network.build().net.state_dict().items()}
    for name, tensor in state.items():
        if tensor.dtype == torch.uint8:
            made[name] = restore(tensor, state[name + _SCALE], shapes[name], packing.Precision("int4"))
        elif tensor.dtype == torch.int8:
            made[name] = tensor.float() * state[name + _SCALE].view(-1, *[1] * (tensor.ndim - 1))
        elif name.removesuffix(_SCALE) == name or name.removesuffix(_SCALE) not in state:
            made[name] = tensor.float()
    return made
