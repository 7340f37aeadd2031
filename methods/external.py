"""Distilled sets of others: images that were released, perhaps with labels, under the benchmark's own protocols.

``bench import DIR`` takes a set into a store; ``external:NAME`` runs it. Its settings come from there: where the files
lie, and the digests that say what they hold, which alone decide the identity of its cells.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

from bench.api import (
    AugmentationSchedule,
    BaseConfig,
    DatasetInfo,
    Distiller,
    GridPoint,
    LabelSource,
    MethodInfo,
    Task,
    TeacherSpec,
    affects,
)
from bench.api.config import Artifact
from bench.errors import UserError

if TYPE_CHECKING:
    from bench.kit.images import EncodedImages

ANY_VIEW = ("teacher",)  # kinds of label sources that label any image


class External(Distiller):
    """Images: the files as they were released, whatever the seed. Labels: the data set's teacher, or the set's own."""

    info: ClassVar[MethodInfo] = MethodInfo(
        name="external", title="Imported set", version=1, look=0, paper="", labels="teacher", imported=True,
        needs="a set: bench import DIR, then --methods external:NAME",
    )  # fmt: skip

    class Config(BaseConfig):
        set: Annotated[str, affects()] = ""
        folder: Annotated[str, affects()] = ""  # holds images/ and perhaps labels/
        stands_for: Annotated[str, affects()] = ""  # the data set
        order_hash: Annotated[str, affects()] = ""  # of the class ids; empty: not known
        ipc: Annotated[int, affects()] = 0
        images: str = ""  # digest of the image files
        labels: Annotated[str, affects()] = ""  # kind of the labels it brought; empty: none
        labels_digest: Annotated[str, affects("labels")] = ""
        schedule: Annotated[dict[str, Any] | None, affects()] = None  # that stored labels belong to

    config: Config

    @classmethod
    def for_dataset(cls, dataset: DatasetInfo, **overrides: Any) -> Self:
        """Make each set a method of its own, whose native labels are those it brought."""
        config = cls.Config(**overrides)
        if not config.set:
            return cls(config)
        labels = f"own {config.labels}" if config.labels else cls.info.labels
        fixed = bool(config.labels) and config.labels not in ANY_VIEW
        info = replace(cls.info, name=f"{cls.info.name}:{config.set}", labels=labels, fixed_labels=fixed)
        members: dict[str, Any] = {"info": info}
        if not config.labels:
            members["label_model"] = Distiller.label_model  # nothing of its own: the teacher labels
        named: type[Self] = type(cls.__name__, (cls,), members)
        return named(config)

    def check(self, point: GridPoint) -> None:
        ours, data = self.config, point.dataset
        if not ours.set:
            raise UserError("external runs a set that was imported: bench import DIR, then --methods external:NAME")
        if ours.stands_for != data.name and data.fingerprint is None:
            raise UserError(f"external:{ours.set} is a distilled {ours.stands_for}, not {data.name}; see --dataset")
        if ours.ipc != point.ipc:
            raise UserError(f"external:{ours.set} has IPC {ours.ipc} alone, not {point.ipc}; say --ipc {ours.ipc}")

    def teachers(self, point: GridPoint) -> tuple[TeacherSpec, ...]:
        return ()

    def depends_on(self, artifact: Artifact, point: GridPoint) -> Mapping[str, Any]:
        """Depend on no seed: these files are there already."""
        return {"ipc": point.ipc} if artifact == "images" else {}

    def needs(self, artifact: Artifact, point: GridPoint) -> Sequence[Artifact]:
        return ("images",) if artifact == "labels" and self.config.labels not in ANY_VIEW else ()

    def label_schedule(self) -> AugmentationSchedule | None:
        return None if self.config.schedule is None else AugmentationSchedule(**self.config.schedule)

    def distill(self, task: Task) -> EncodedImages:
        from bench.kit.images import load

        ours = self.config
        if ours.order_hash and ours.order_hash != task.data.order_hash:
            raise UserError(
                f"external:{ours.set} has another class order (sha256 {ours.order_hash[:12]}) than {task.dataset.name} "
                f"({task.data.order_hash[:12]}); import it again for this data set"
            )
        images = load(self._folder("images", ours.images))
        task.progress(len(images), len(images))
        return images

    def label_model(self, task: Task) -> LabelSource:
        from bench.kit import labels

        source = labels.load(self._folder("labels", self.config.labels_digest), task.device, {})
        if task.images is not None:
            source.check(task.images, task.data.order_hash)
        return source

    def _folder(self, what: str, wanted: str) -> Path:
        """Return the folder of the images or labels, if its files are those that were imported."""
        from bench.kit.images import files_digest

        folder = Path(self.config.folder) / what
        found = files_digest(folder) if folder.is_dir() else ""
        if found != wanted:
            state = f"are not those that were imported (sha256 {wanted[:12]})" if found else "are gone"
            raise UserError(
                f"the {what} of external:{self.config.set} in {self.config.folder} {state}; import them again"
            )
        return folder
