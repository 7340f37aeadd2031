"""Evaluation of tensors in this process: what ``bench.evaluate`` does, with the evaluators and checks of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import Tensor

from bench.api import EvaluationTask, LabelSource, architectures, catalogue, registry
from bench.api.labels import Encoding
from bench.errors import UserError
from bench.execution.environment import device_for, environment
from bench.kit import checkpoint, data
from bench.kit import images as image_files
from bench.kit.arrays import CallableLabels, Soft, images_of, static_source
from bench.kit.labels.stored import MadeFor, images_digest
from bench.kit.overlap import Leakage, too_many
from bench.kit.validation import InvalidResult
from bench.planning.protocols import changed, choose

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

LabelModel = Callable[[Tensor], Tensor]


class Summary(NamedTuple):
    """The distribution of a metric over seeds, as fractions; ``std`` is the sample's, None of a single seed."""

    mean: float
    std: float | None
    n: int

    def __str__(self) -> str:
        spread = "" if self.std is None else f" ± {100 * self.std:.1f}"
        return f"{100 * self.mean:.1f}{spread} % (n = {self.n})"


@dataclass(frozen=True)
class Result:
    """The students that were trained on one synthetic set.

    ``rows`` holds the metrics of each seed (``seed``, ``top1``, ``oracle_top1``, ``curve``, …) as the evaluator of the
    protocol returns them. ``label_bytes`` are bytes on disk beyond images and hard labels; None where labels come from
    a callable.
    """

    dataset: str
    name: str
    labels: Literal["hard", "static", "online"]
    student: str
    protocol: str
    protocol_version: int
    ipc: int
    image_bytes: int
    label_bytes: int | None
    rows: tuple[dict[str, Any], ...]
    data_digest: str = ""
    overlap: int = 0  # images that are test images
    kernels: str = ""  # "portable" as in a run, or this process's own: they are chosen before torch first computes

    @property
    def top1(self) -> Summary:
        """The last epoch's accuracy (of other evaluators: their headline metric)."""
        found = [row["top1"] for row in self.rows]
        return Summary(fmean(found), stdev(found) if len(found) > 1 else None, len(found))

    def to_frame(self) -> pd.DataFrame:
        """One row per seed, with the column names of ``bench.load_results``."""
        import pandas as pd

        facts = {key: value for key, value in vars(self).items() if key not in ("rows", "name")}
        return pd.DataFrame([{"method": self.name, **facts, **row} for row in self.rows])

    def __str__(self) -> str:
        return f"{self.name} on {self.dataset}, IPC {self.ipc}, {self.student}, {self.protocol}: {self.top1}"


def evaluate(
    images: Tensor | np.ndarray[Any, Any],
    labels: Tensor | np.ndarray[Any, Any] | LabelModel | None = None,
    *,
    dataset: str = "digits",
    student: str | None = None,
    protocol: str = "common",
    ipc: int | None = None,
    seeds: Iterable[int] = (0, 1, 2),
    classes: Tensor | np.ndarray[Any, Any] | None = None,
    value_range: tuple[float, float] | None = None,
    soft: Soft | None = None,
    settings: Mapping[str, Any] | None = None,
    encoding: Encoding = "png",
    name: str = "mine",
    data_root: Path | str | None = None,
    device: str = "auto",
    allow_overlap: bool = False,
) -> Result:
    """Train students on a synthetic set and test them on the real test set, as ``bench run`` does.

    Args:
        images: (N, 3, S, S) of the data set's size, in any order of the classes; uint8, or float with ``value_range``.
        labels: hard int (N,); soft (N, C), one per image, stored as fp16 or fp32 by its dtype; a callable that maps
            float views (B, 3, S, S) in [0, 1] to logits (B, C) on the same device; or None: hard labels of images that
            are class by class.
        dataset: a name of ``bench list datasets`` or ``folder:PATH``.
        student: a name of ``bench list students``; None: the data set's default.
        protocol: ``common``, a name of ``bench list protocols``, or a TOML file.
        ipc: images per class; None: N divided by the number of classes.
        seeds: one student each.
        classes: int (N,), the class of each image where ``labels`` are soft; None: images are class by class.
        value_range: the values of black and white in float images, e.g. ``(0, 1)``; they are rounded to 8 bits.
        soft: what the rows of soft labels are; needed only where they could be either.
        settings: fields of the protocol to change, e.g. ``{"epochs": 30}``.
        encoding: the file format in which the images are shipped; students learn from the decoded files.
        name: the name of the method in the result.
        data_root: the folder that holds data sets; None: its default.
        device: a torch device; ``auto``: an accelerator where there is one.
        allow_overlap: go on where more than 1 % of the test images are training images, or of the images test images.

    Raises:
        UserError: a name that nothing answers to, or inputs that the data set or the protocol does not allow.
        Diverged: training of a student diverged.
    """
    info = catalogue.dataset(dataset)
    place = device_for(device)
    rules = changed(choose(protocol, info, name), dict(settings or {}))
    architectures.check(student := student or info.student)
    seeds = tuple(seeds)
    if not seeds:
        raise UserError("seeds are empty; expected at least one, e.g. seeds=(0, 1, 2)")
    if len(set(seeds)) < len(seeds):
        raise UserError(f"seeds {seeds} hold one twice, which would be the same student")
    kind = _kind(labels)
    if kind not in (known := registry.evaluator(rules.evaluator).supported_labels):
        raise UserError(f"students of {rules.name} do not learn from {kind} labels, only from {', '.join(known)}")
    real = data.load(info, catalogue.root_of(dataset, None if data_root is None else Path(data_root)))
    try:
        given = labels if kind == "hard" and labels is not None else classes
        made, order = images_of(images, given, info, ipc, value_range, name)
        copies = Leakage.of(real)
        among = copies.among(made.pixels)
        refusal = copies.refusal or too_many(among, len(made), f"images are test images of {info.name}")
        if refusal and not allow_overlap:
            raise UserError(refusal)
        with checkpoint.temporary_folder() as folder, torch.random.fork_rng():
            images_folder, labels_folder, work = (folder / part for part in ("images", "labels", "work"))
            for one in (images_folder, labels_folder, work):
                one.mkdir()
            image_files.save(made, images_folder, encoding)
            made = image_files.load(images_folder)
            source: LabelSource | None = None
            if callable(labels):
                source = CallableLabels(labels, info.classes, name)
            elif kind == "static":
                made_for = MadeFor(images_digest(made), real.order_hash, name)
                source = static_source(torch.as_tensor(labels)[order], soft, info, made_for, place)
                source.save(labels_folder)
            ipc = len(made) // info.classes
            task = EvaluationTask(
                dataset=info, data=real, images=made, labels=source, student=student,
                protocol=rules.for_student(info.name, student),
                ipc=ipc, seed=0, device=place, work=work, progress=lambda done, total, **_: None,
            )  # fmt: skip
            rows = []
            for seed in seeds:
                (own := work / f"seed-{seed}").mkdir()
                found = registry.evaluator(rules.evaluator)().evaluate(replace(task, seed=seed, work=own))
                rows.append({"seed": seed, **found})
            image_bytes, label_bytes = _bytes(images_folder), _bytes(labels_folder)
    except InvalidResult as error:
        raise UserError(str(error)) from None
    return Result(
        dataset=info.name,
        name=name,
        labels=kind,
        student=student,
        protocol=rules.name,
        protocol_version=rules.version,
        ipc=ipc,
        image_bytes=image_bytes,
        label_bytes=None if kind == "online" else label_bytes,
        rows=tuple(rows),
        data_digest=real.digest,
        overlap=among,
        kernels=environment(str(place), torch.get_num_threads())["kernels"],
    )


def _kind(labels: Any) -> Literal["hard", "static", "online"]:
    if callable(labels):
        return "online"
    return "hard" if labels is None or torch.as_tensor(labels).ndim == 1 else "static"


def _bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
