"""Label files that others published with their images → a label source of a store.

What is not in the files is the images: those of a batch are listed by G_VBSM alone; SRe2L draws them again from a seed,
LPLD and HALD list them next to the files. Labels of other images than theirs would train a student to nonsense, so each
epoch and each file must agree with the images that it is said to be of.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from scipy.stats import binom
from torch import Tensor
from torch.utils.data import RandomSampler

from bench.api import Dataset, Images
from bench.api.augmentation import AugmentationConfig, AugmentationSchedule
from bench.api.stored.layout import shard_name
from bench.errors import UserError
from bench.exchange.distilled_set import LabelFacts
from bench.exchange.published_files import Parts, label_files, read_batch
from bench.kit.labels.codecs import kept_classes
from bench.kit.labels.published import PublishedLabels
from bench.kit.labels.stored import images_digest

Counts = np.ndarray[Any, np.dtype[Any]]
_CERTAIN = 1e-8  # probability at which a file's disagreement is no accident; sets have up to 1e5 files


def import_labels(
    source: Path, order: str | None, files: Mapping[int, Sequence[Path]], images: Images, real: Dataset, target: Path
) -> tuple[LabelFacts, str]:
    """Write the label files in ``source`` as a label source into ``target``; return facts, and what is to be said.

    Args:
        order: a file of the images of each epoch, or the seed that SRe2L's sampler draws them with; None: listed.
        files: the files of ``images`` by class, whose sorted paths are the numbers of torchvision's ImageFolder.

    Raises:
        UserError: they are not label files, not of these images, or do not say which images they are of.
    """
    classes, side = real.info.logits, images.pixels.shape[2]
    target.mkdir()
    paths = [path for label in range(real.info.classes) for path in files[label]]
    places = torch.tensor(sorted(range(len(paths)), key=lambda place: paths[place].parts))
    epochs = label_files(source)
    listed = [None] * len(epochs) if order is None else _listed(order, len(images), epochs)
    agreement: list[Tensor] = []
    first: _Epoch | None = None
    for number, (found, numbers) in enumerate(zip(epochs.values(), listed, strict=False)):
        one = _Epoch.read([*found.values()], classes, side)
        first = first or one
        if (one.form, one.sizes) != (first.form, first.sizes):
            raise one.odd()
        indices = places[one.images(numbers, len(images))]
        agreement.append(one.agreement(indices, images.labels, classes))
        one.parts["images"] = indices.to(torch.int16 if len(images) < 2**15 else torch.int32)
        save_file({name: tensor.contiguous() for name, tensor in one.parts.items()}, target / shard_name(number))
    assert first is not None
    said = _check_agreement(source, [[*found.values()] for found in epochs.values()], torch.stack(agreement))
    plan = AugmentationConfig(size=side, crop="given")
    schedule = AugmentationSchedule(plan=plan, images=len(images), epochs=len(epochs), batch_size=first.sizes[0])
    facts: dict[str, Any] = {
        "schedule": schedule.model_dump(mode="json"), "classes": classes, "form": first.form, "epochs": len(epochs),
        "views": sum(first.sizes), "tensors": sorted(first.parts), "images": images_digest(images),
        "order_hash": real.order_hash, "labeller": PublishedLabels.kind,
    }  # fmt: skip
    text = json.dumps({"kind": PublishedLabels.kind, **facts})
    (target / "source.json").write_text(text + "\n", encoding="utf-8")
    return LabelFacts(kind=PublishedLabels.kind, schedule=facts["schedule"]), said


@dataclass(frozen=True)
class _Epoch:
    """The batches of a label epoch, of ``sizes`` views, joined; ``form`` as of ``PublishedLabels``."""

    folder: Path
    form: str
    sizes: list[int]
    parts: Parts

    @classmethod
    def read(cls, paths: Sequence[Path], classes: int, side: int) -> _Epoch:
        batches = [read_batch(path, classes, side) for path in paths]
        form = "kept" if "classes" in batches[0] else "logits"
        if form == "logits" and all(_sum_to_one(one["labels"]) for one in batches):
            form = "probabilities"
        sizes = [len(one["flips"]) for one in batches]
        join = {name: torch.stack if name == "mixes" else torch.cat for name in batches[0]}
        alike = len({(*one, len(one["mixes"]), one["labels"].shape[1]) for one in batches}) == 1
        if not alike or {*sizes[:-1]} - {sizes[0]} or sizes[-1] > sizes[0]:
            raise cls(paths[0].parent, form, sizes, {}).odd()
        parts = {name: joined([one[name] for one in batches]) for name, joined in join.items()}
        return cls(paths[0].parent, form, sizes, parts)

    def odd(self) -> UserError:
        return UserError(f"{self.folder} has batches of other sizes or labels than the first; expected as many")

    def images(self, listed: Tensor | None, count: int) -> Tensor:
        """Return the numbers (V,) of the images of the views: as the files list them, or else as ``listed``."""
        views = sum(self.sizes)
        if "images" not in self.parts and listed is None:
            raise UserError(
                f"{self.folder.parent}: the files do not list the images of a batch; add --label-order FILE, their "
                "JSON list of the images of each epoch, or the seed that they are drawn with (--label-order 42 of "
                "SRe2L)"
            )
        numbers = self.parts["images"].long() if listed is None else listed[:views]
        if len(numbers) != views or int(numbers.min()) < 0 or int(numbers.max()) >= count:
            raise UserError(f"{self.folder} has {views} views, not all of these {count} images")
        return numbers

    def agreement(self, indices: Tensor, labels: Tensor, classes: int) -> Tensor:
        """Count, for each batch, views, labels whose likeliest class is one that the view shows, and those by chance.

        Args:
            indices: images (V,) of the views.
            labels: classes (N,) of the images.

        Returns:
            float64 (batches, 3).
        """
        likeliest = self.parts["labels"].argmax(1)
        if self.form == "kept":
            kept = kept_classes({"indexes": self.parts["classes"]})
            if int(kept.min()) < 0 or int(kept.max()) >= classes:
                raise UserError(f"{self.folder} has classes {kept.min()} to {kept.max()}; expected 0 to {classes - 1}")
            likeliest = kept.gather(1, likeliest[:, None])[:, 0]
        batch = torch.arange(len(self.sizes)).repeat_interleave(torch.tensor(self.sizes))
        own, other = labels[indices], labels[indices[batch * self.sizes[0] + self.parts["partners"].long()]]
        right, shown = (likeliest == own) | (likeliest == other), 1 + (own != other).double()
        counts = torch.stack([torch.ones(len(own)), right, shown / classes], 1).double()
        return torch.zeros(len(self.sizes), 3, dtype=torch.float64).index_add_(0, batch, counts)


def _check_agreement(source: Path, paths: Sequence[Sequence[Path]], counts: Tensor) -> str:
    """Refuse labels of which all, an epoch or a file fit their images no better than by chance; say how they fit.

    Args:
        counts: of the files of each epoch (E, batches, 3), as :meth:`_Epoch.agreement` returns them.
    """
    of_epochs = counts.sum(1)
    views, right, chance = of_epochs.sum(0).tolist()
    said = (
        f"the likeliest class of {right / views:.0%} of the labels is one that their view shows "
        f"({float((of_epochs[:, 1] / of_epochs[:, 0]).min()):.0%} in the worst epoch, {chance / views:.0%} by chance)"
    )
    if right < max(1.5 * chance, chance + 3 * math.sqrt(chance)) and chance < 0.6 * views:
        raise UserError(f"{source}: {said}; the images are in another order, see --label-order")
    folders, files = [own[0].parent for own in paths], [path for own in paths for path in own]
    for places, sums in ((folders, of_epochs), (files, counts.flatten(0, 1))):
        wrong, usual = _misfits(*sums.numpy().T)
        if len(wrong):
            own, more = sums[int(wrong[0])], f" ({len(wrong)} such)" if len(wrong) > 1 else ""
            raise UserError(
                f"{places[int(wrong[0])]}{more}: the likeliest class of {float(own[1] / own[0]):.0%} of its labels is "
                f"one that their view shows, of others {usual:.0%}; its images are in another order, see "
                "--label-order, or it is of another set"
            )
    return said


def _misfits(views: Counts, right: Counts, chance: Counts) -> tuple[Counts, float]:
    """Return the places that are nearer to chance than to those that fit, beyond an accident, and how well those do."""
    fits = right > chance + 4 * np.sqrt(chance * (1 - chance / views))
    usual = right[fits].sum() / max(views[fits].sum(), 1)
    below = (right / views < (chance / views + usual) / 2) & (binom.cdf(right, views, min(usual, 0.99)) < _CERTAIN)
    return np.flatnonzero(below & fits.any()), float(usual)


def _gap(numbers: list[int]) -> bool:
    return numbers[0] > 1 or numbers != [*range(numbers[0], numbers[0] + len(numbers))]


def _listed(order: str, images: int, epochs: Mapping[int, Mapping[int, Path]]) -> list[Tensor]:
    """Return the images of each epoch, as numbers in ImageFolder's order."""
    for found in epochs.values():
        if _gap([*found]):
            folder = next(iter(found.values())).parent
            raise UserError(f"{folder} lacks a batch, so that nothing says which images the others are of")
    try:
        if order.isdecimal():
            sampler = RandomSampler(range(images), generator=torch.Generator().manual_seed(int(order)))
            flat = [torch.tensor(list(sampler)) for _ in range(len(epochs) + 1)]
        else:
            found = json.loads(Path(order).read_text(encoding="utf-8"))
            flat = [torch.tensor(list(_flat(epoch)), dtype=torch.int64) for epoch in found]
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise UserError(
            f"--label-order {order}: {error}; expected a seed, or a JSON list of the images of each epoch"
        ) from None
    if len(flat) < len(epochs):
        raise UserError(f"--label-order {order} lists {len(flat)} epochs, and there are labels of {len(epochs)}")
    if len(flat) > len(epochs) and _gap([*epochs]):
        raise UserError(
            f"--label-order {order} is of all epochs, and some between epoch_{min(epochs)} and "
            f"epoch_{max(epochs)} have no labels; list the images of the {len(epochs)} that have"
        )
    return flat


def _flat(entry: Any) -> Iterable[int]:
    return (number for one in entry for number in _flat(one)) if isinstance(entry, list) else (entry,)


def _sum_to_one(labels: Tensor) -> bool:
    return bool((labels >= 0).all() and ((labels.float().sum(1) - 1).abs() < 1e-2).all())
