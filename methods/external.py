"""Distilled sets of others: images that were released, perhaps with labels, under the benchmark's own protocols.

``bench import DIR`` takes a set into a store; ``external:NAME`` runs it. Its settings come from there: where the files
lie, and the digests that say what they hold, which alone decide the identity of its cells.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from bench.api import (
    TEACHER_LABELS,
    BaseConfig,
    CellSpec,
    DatasetInfo,
    Distiller,
    GridPoint,
    Images,
    LabelSource,
    MethodInfo,
    Task,
    TeacherSpec,
)
from bench.api.augmentation import AugmentationSchedule
from bench.errors import UserError

if TYPE_CHECKING:
    from bench.kit.images import EncodedImages

ANY_VIEW = ("teacher",)  # kinds of label sources that label any image


class External(Distiller):
    """Images: the files as they were released, whatever the seed. Labels: the data set's teacher, or the set's own."""

    info: ClassVar[MethodInfo] = MethodInfo(
        name="external", title="Imported set", version=1, paper="", labels="teacher",
        needs="a set: bench import DIR, then --methods external:NAME", imported=True,
    )  # fmt: skip

    class Config(BaseConfig):
        set: str = ""
        folder: str = ""  # holds images/ and perhaps labels/
        stands_for: str = ""  # the data set
        order_hash: str = ""  # of the class ids; empty: not known
        ipc: int = 0
        images: str = ""  # digest of the image files
        labels: str = ""  # kind of the labels it brought; empty: none
        labels_digest: str = ""
        schedule: dict[str, Any] | None = None  # that stored labels belong to

    config: Config

    @classmethod
    def for_dataset(cls, dataset: DatasetInfo, **overrides: Any) -> Self:
        config = cls.Config(**overrides)
        if not config.set:
            return cls(config)
        # each set is a method of its own, and what its native labels are depends on it
        labels = f"own {config.labels}" if config.labels else cls.info.labels
        info = replace(cls.info, name=f"{cls.info.name}:{config.set}", labels=labels)
        named: type[Self] = type(cls.__name__, (cls,), {"info": info})
        return named(config)

    def check(self, setting: GridPoint) -> None:
        ours, data = self.config, setting.dataset
        if not ours.set:
            raise UserError("external runs a set that was imported: bench import DIR, then --methods external:NAME")
        if ours.stands_for != data.name and data.fingerprint is None:
            raise UserError(f"external:{ours.set} is a distilled {ours.stands_for}, not {data.name}; see --dataset")
        if ours.ipc != setting.ipc:
            raise UserError(f"external:{ours.set} has IPC {ours.ipc} alone, not {setting.ipc}; say --ipc {ours.ipc}")

    def teachers(self, setting: GridPoint) -> tuple[TeacherSpec, ...]:
        return ()

    def image_recipe(self, setting: GridPoint) -> CellSpec:
        """The same for every seed: these images are there already."""
        fields = {"ipc": setting.ipc, "images": self.config.images}
        return CellSpec(External.info.name, External.info.version, fields, self.config.non_default_fields())

    def label_recipe(self, setting: GridPoint) -> CellSpec | None:
        ours = self.config
        if not ours.labels:
            return TEACHER_LABELS
        fixed = ours.labels not in ANY_VIEW
        return CellSpec(
            External.info.name,
            External.info.version,
            {"labels": ours.labels_digest},
            ours.non_default_fields(),
            needs_images=fixed,
            fixed=fixed,
            schedule=None if ours.schedule is None else AugmentationSchedule(**ours.schedule),
        )

    def distill(self, task: Task) -> Images:
        ours = self.config
        if ours.order_hash and ours.order_hash != task.data.order_hash:
            raise UserError(
                f"external:{ours.set} has another class order (sha256 {ours.order_hash[:12]}) than {task.dataset.name} "
                f"({task.data.order_hash[:12]}); import it again for this data set"
            )
        images = self._read()
        task.progress(len(images), len(images))
        return images

    def label(self, task: Task, images: Images | None) -> LabelSource:
        from bench.kit import labels
        from bench.kit.images import files_digest

        folder = Path(self.config.folder) / "labels"
        self._check_digest("labels", files_digest(folder) if folder.is_dir() else "")
        source = labels.load(folder, task.device, {})
        if images is not None:
            source.check(images, task.data.order_hash)
        return source

    def _read(self) -> EncodedImages:
        from bench.kit.images import files_digest, load

        folder = Path(self.config.folder) / "images"
        self._check_digest("images", files_digest(folder) if folder.is_dir() else "")
        return load(folder)

    def _check_digest(self, what: str, found: str) -> None:
        wanted = self.config.images if what == "images" else self.config.labels_digest
        if found != wanted:
            state = f"are not those that were imported (sha256 {wanted[:12]})" if found else "are gone"
            raise UserError(
                f"the {what} of external:{self.config.set} in {self.config.folder} {state}; import them again"
            )
