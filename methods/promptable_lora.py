"""HeLlO's lightening for dense labels: a low-rank adapted public CLIP tower with a light mask decoder answers in the
teacher's place, and only what was trained of it is stored (arXiv 2408.08201, supplement B.4).

The supplement gives two sizes and no architecture for masks. Ours: the tower's convolutions are adapted as HeLlO's
projector adapts them; its four stages are brought together at a quarter of the image's resolution; the decoder is the
teacher's own kind (:mod:`bench.kit.segmentation.decoder`). It learns the teacher's masks on the training split.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from bench.api import BaseConfig, Distiller, GridPoint, MethodInfo, Task, TeacherSpec, affects
from bench.api.config import Artifact
from bench.kit.clip.naming import clip_identity
from methods.promptable import MaskTraining, Promptable, TeacherConfig
from methods.random_real import RandomReal

if TYPE_CHECKING:
    from methods.segmentation.projector import ProjectorMasks


class PromptableLoRA(Distiller):
    """Images and teacher: `promptable`'s. Labels: the projector's masks, online."""

    info: ClassVar[MethodInfo] = MethodInfo(
        name="promptable_lora",
        title="Promptable projector",
        version=1,
        paper="arXiv 2408.08201, B.4",
        labels="projector",
        masks=True,
        needs="a data set with masks, a public CLIP with a ResNet tower",
    )
    label_kinds: ClassVar[dict[str, str]] = {"mask-projector": "methods.segmentation.projector:ProjectorMasks"}

    class Config(BaseConfig):
        teacher: Annotated[TeacherConfig, affects()] = TeacherConfig()
        clip: Annotated[str | None, affects()] = None  # None: the data set's
        layers: Annotated[
            Literal["3x3", "3x3-blocks", "all", "no-downsample", "no-stem", "blocks", "layers-3-4"], affects("labels")
        ] = "3x3"
        convention: Annotated[Literal["loralib", "peft", "flattened"], affects("labels")] = "loralib"
        conv_rank: Annotated[int, affects("labels"), Field(ge=1)] = 8  # HeLlO's
        decoder_width: Annotated[int, affects("labels"), Field(ge=1)] = 16
        training: Annotated[MaskTraining, affects("labels")] = MaskTraining(epochs=8)

        def structure(self) -> dict[str, Any]:
            """The fields that must be known to build the projector again, all of them, as plain JSON values."""
            return self.model_dump(mode="json", exclude={"teacher", "clip", "training"})

    config: Config

    def check(self, point: GridPoint) -> None:
        self.prepared_from(point).check(point)

    def teachers(self, point: GridPoint) -> tuple[TeacherSpec, ...]:
        return ()

    def images_from(self, point: GridPoint) -> RandomReal:
        return RandomReal()

    def prepared_from(self, point: GridPoint) -> Promptable:
        return Promptable(self.config.teacher)

    def needs(self, artifact: Artifact, point: GridPoint) -> Sequence[Artifact]:
        return ("prepared",) if artifact == "labels" else ()

    def depends_on(self, artifact: Artifact, point: GridPoint) -> Mapping[str, Any]:
        """The projector is one for each seed, whatever the size of the set."""
        return {"seed": point.seed, "clip": clip_identity(self.config.clip or point.dataset.clip)}

    def label_model(self, task: Task) -> ProjectorMasks:
        from methods.segmentation.projector import train_projector

        clip = self.config.clip or task.dataset.clip
        return train_projector(task, clip, self.config, self.prepared_from(task).label_model(task))
