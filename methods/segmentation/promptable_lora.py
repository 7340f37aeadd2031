"""HeLlO's lightening for dense labels (arXiv 2408.08201, supplement B.4).

A low-rank adapted public CLIP tower with a light mask decoder answers in the teacher's place, and only what was trained
of it is stored.

The supplement gives two sizes and no architecture for masks. Ours: the tower's convolutions are adapted as HeLlO's
projector adapts them; its four stages are brought together at a quarter of the image's resolution; the decoder is the
teacher's own kind (:mod:`methods.segmentation.networks`). It learns the teacher's masks on the training split.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from bench.api import Distiller, GridPoint, MethodInfo, Task
from bench.api.config import Artifact
from bench.kit.clip.naming import ICON_CLIP, clip_identity
from methods.segmentation.config import TASK, ProjectorConfig
from methods.segmentation.promptable import MaskMethod, Promptable

if TYPE_CHECKING:
    from methods.segmentation.projector import ProjectorMasks


class PromptableLoRA(MaskMethod):
    """Images and teacher: `promptable`'s. Labels: the projector's masks, online."""

    info: ClassVar[MethodInfo] = MethodInfo(
        name="promptable_lora", title="Promptable projector", version=1, look=4, paper="arXiv 2408.08201, B.4",
        labels="projector", tasks=(TASK,), needs="a data set with masks, a public CLIP with a ResNet tower",
    )  # fmt: skip
    Config = ProjectorConfig
    label_kinds: ClassVar[dict[str, str]] = {"mask-projector": "methods.segmentation.projector:ProjectorMasks"}

    config: ProjectorConfig

    def check(self, point: GridPoint) -> None:
        self._promptable().check(point)

    def prepared_from(self, point: GridPoint) -> Distiller:
        return self._promptable()

    def depends_on(self, artifact: Artifact, point: GridPoint) -> Mapping[str, Any]:
        """One projector per seed, whatever the size of the set."""
        return {"seed": point.seed, "clip": clip_identity(self.config.clip or point.dataset.clip)}

    def preflight(self, point: GridPoint) -> None:
        if (clip := self.config.clip or point.dataset.clip) != ICON_CLIP:
            from bench.kit.clip.weights import check

            check(clip)

    def label_model(self, task: Task) -> ProjectorMasks:
        from methods.segmentation.projector import train_projector

        clip = self.config.clip or task.dataset.clip
        return train_projector(task, clip, self.config, self._promptable().label_model(task))

    def _promptable(self) -> Promptable:
        return Promptable(self.config.teacher)
