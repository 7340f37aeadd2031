"""The pool as a label model: the mean of all its networks' logits."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Self

import torch
from safetensors.torch import save_file
from torch import Tensor

from bench.api import Classifier, LabelSource, Trajectory
from bench.kit.teachers.trajectory import Network
from bench.kit.views import AugmentedBatch


class Ensemble(LabelSource):
    """The last checkpoints of a pool, answering every view. Counted are all their weights as stored, fp32.

    With ``norm_weighting`` (ImageNet-1K; shaoshitong/G_VBSM_Dataset_Condensation,
    ``relabel/generate_soft_label_with_db.py``) the labels of an image depend on the batch it is in.
    """

    kind: ClassVar[str] = "ensemble"

    def __init__(self, networks: Sequence[Network], models: Sequence[Classifier], norm_weighting: bool):
        self.networks, self.models, self.norm_weighting = tuple(networks), tuple(models), norm_weighting

    @classmethod
    def of(cls, teachers: Sequence[Trajectory], norm_weighting: bool) -> Self:
        """Make the source of the last checkpoints of trajectories."""
        networks = [Network(**each.network.model_dump()) for each in teachers]
        return cls(networks, [each.model() for each in teachers], norm_weighting)

    @torch.no_grad()
    def soft_labels(self, views: AugmentedBatch, step: int) -> Tensor:
        logits = torch.stack([model(views.pixels) for model in self.models])
        return average(logits, self.norm_weighting)

    def parameters(self) -> int:
        return sum(p.numel() for model in self.models for p in model.net.parameters())

    def save(self, folder: Path) -> None:
        networks = [network.model_dump(mode="json") for network in self.networks]
        facts = {"kind": self.kind, "norm_weighting": self.norm_weighting, "networks": networks}
        (folder / "source.json").write_text(json.dumps(facts) + "\n", encoding="utf-8")
        for index, model in enumerate(self.models):
            state = {name: tensor.contiguous() for name, tensor in model.net.state_dict().items()}
            save_file(state, folder / _file_name(index))

    @classmethod
    def load(cls, folder: Path, device: torch.device) -> Self:
        facts = json.loads((folder / "source.json").read_text(encoding="utf-8"))
        networks = [Network(**each) for each in facts["networks"]]
        models = [each.with_weights(folder / _file_name(index), device) for index, each in enumerate(networks)]
        return cls(networks, models, facts["norm_weighting"])


def average(logits: Tensor, norm_weighting: bool) -> Tensor:
    """Average the logits (M, B, C) of M networks to labels (B, C).

    With ``norm_weighting`` each network's are first brought to the mean of their Frobenius norms over the batch.
    """
    if norm_weighting:
        norms = torch.linalg.matrix_norm(logits)
        logits = logits * (norms.mean() / norms)[:, None, None]
    return logits.mean(0)


def _file_name(index: int) -> str:
    return f"network-{index}.safetensors"
