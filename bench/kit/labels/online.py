"""The online teacher as a label source: it labels any view, at the price of its own weights (RDED)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar, Self

import torch
from safetensors.torch import save_file
from torch import Tensor

from bench.contract import LabelSource
from bench.kit.models import Classifier
from bench.kit.teachers.trajectory import Network, Trajectory
from bench.kit.views import Views

_WEIGHTS = "teacher.safetensors"


class OnlineTeacher(LabelSource):
    """The last checkpoint of a trajectory, answering every view. Counted are its weights as stored, fp32."""

    kind: ClassVar[str] = "teacher"

    def __init__(self, network: Network, model: Classifier):
        self.network, self.model = network, model

    @classmethod
    def of(cls, teacher: Trajectory) -> Self:
        """The source that a trajectory's last checkpoint makes."""
        return cls(teacher.network, teacher.model())

    @torch.no_grad()
    def soft_labels(self, views: Views, step: int) -> Tensor:
        return self.model(views.pixels)  # type: ignore[no-any-return]

    def save(self, folder: Path) -> None:
        facts = {"kind": self.kind, "network": self.network.model_dump(mode="json")}
        (folder / "source.json").write_text(json.dumps(facts) + "\n", encoding="utf-8")
        save_file({name: t.contiguous() for name, t in self.model.net.state_dict().items()}, folder / _WEIGHTS)

    @classmethod
    def load(cls, folder: Path, device: torch.device) -> Self:
        network = Network(**json.loads((folder / "source.json").read_text(encoding="utf-8"))["network"])
        return cls(network, network.with_weights(folder / _WEIGHTS, device))
