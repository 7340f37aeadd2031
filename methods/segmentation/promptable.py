"""Soft masks for promptable segmentation: real scenes with prompts, labelled by a teacher that answers prompts.

HeLlO's supplement (arXiv 2408.08201, B.4) carries its lightening over to SA-1B with SAM-B as the teacher. Here the
teacher is a small encoder–decoder that is trained first (`prepare`), or SAM-B from a file. Its answers to every view
are what others would store; :mod:`methods.segmentation.promptable_lora` replaces them. The images are random real ones,
`random_real`'s, since the question is what the labels weigh.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from bench.api import Dataset, Distiller, GridPoint, MethodInfo, Task, TeacherSpec
from bench.api.config import Artifact
from bench.errors import UserError
from bench.kit.clip.naming import file_digest
from methods.random_real import RandomReal
from methods.segmentation.config import TASK, TeacherConfig, check_dataset

if TYPE_CHECKING:
    from torch import Tensor

    from methods.segmentation.teacher import TeacherMasks


class MaskMethod(Distiller):
    """A method whose images are random real scenes, and whose labels answer their prompts with masks."""

    def teachers(self, point: GridPoint) -> tuple[TeacherSpec, ...]:
        """None that classifies."""
        return ()

    def images_from(self, point: GridPoint) -> Distiller:
        return RandomReal()

    def needs(self, artifact: Artifact, point: GridPoint) -> Sequence[Artifact]:
        return ("prepared",) if artifact == "labels" else ()

    @classmethod
    def example_data(cls) -> Dataset:
        from methods.segmentation.scenes import example_data

        return example_data()


class Promptable(MaskMethod):
    """Images: random real scenes with prompts and masks. Labels: the teacher's masks, online."""

    info: ClassVar[MethodInfo] = MethodInfo(
        name="promptable", title="Promptable teacher", version=1, look=3, paper="arXiv 2408.08201, B.4",
        labels="teacher", tasks=(TASK,), needs="a data set with masks",
    )  # fmt: skip
    Config = TeacherConfig
    label_kinds: ClassVar[dict[str, str]] = {"mask-teacher": "methods.segmentation.teacher:TeacherMasks"}

    config: TeacherConfig

    def check(self, point: GridPoint) -> None:
        check_dataset(self.info.name, point.dataset)
        if self.config.file is not None and not Path(self.config.file).is_file():
            raise UserError(f"promptable.file {self.config.file} is no file; expected segment-anything's checkpoint of "
                            "ViT-B (sam_vit_b_01ec64.pth)")  # fmt: skip

    def depends_on(self, artifact: Artifact, point: GridPoint) -> Mapping[str, Any]:
        """One teacher for all seeds and sizes of sets."""
        file = self.config.file
        return {"file": f"sam@{file_digest(Path(file))[:12]}"} if artifact == "prepared" and file is not None else {}

    def prepare(self, task: Task) -> Mapping[str, Tensor]:
        from methods.segmentation.teacher import make_teacher

        return make_teacher(self.config, task)

    def label_model(self, task: Task) -> TeacherMasks:
        from methods.segmentation.teacher import MaskNetwork, TeacherMasks

        return TeacherMasks(MaskNetwork.of(self.config, task), task.prepared, task.device)
