"""Label files as others publish them: those of FKD and SRe2L, G_VBSM, LPLD, LPQLD and HALD.

All are one file per batch, ``epoch_3/batch_17.tar``, of ``torch.save`` and a list: for each view a crop (top, left,
height and width as fractions of the image), a flip, the place of the mix partner in the batch and the label, and one
weight and box of the mix. Their order in the list, their types and what a label is differ; each is recognised by its
type and shape. Files are read without running code from them. What is not in them is the images: those of a batch are
listed by G_VBSM alone; SRe2L draws them again from a seed, LPLD and HALD list them next to the files.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.utils.data import RandomSampler

from bench.api import Dataset, Images
from bench.api.augmentation import AugmentationConfig, AugmentationSchedule
from bench.api.stored.layout import shard_name
from bench.errors import UserError
from bench.exchange.distilled_set import LabelFacts
from bench.kit.labels.codecs import kept_classes
from bench.kit.labels.published import PublishedLabels
from bench.kit.labels.stored import images_digest

# what numpy's numbers are pickled with (the weight of a mix); they hold no code
_HARMLESS = [np.dtype, type(np.dtype(np.float64)), type(np.dtype(np.float32)), type(np.dtype(np.int64))]
_SCALAR = np.float64(0).__reduce__()[0]
Parts = dict[str, Tensor]  # of a batch, as bench.kit.labels.published stores them


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
    classes = real.info.logits
    target.mkdir()
    paths = [path for label in range(real.info.classes) for path in files[label]]
    places = torch.tensor(sorted(range(len(paths)), key=lambda place: paths[place].parts))
    epochs: dict[int, list[tuple[int, Path]]] = {}  # epoch → its batches and their files, both in order
    for epoch, batch, path in sorted(_numbered(source)):
        epochs.setdefault(epoch, []).append((batch, path))
    listed = None if order is None else _listed(order, len(images), [*epochs])
    lacking = [epoch for epoch, own in epochs.items() if _gap([batch for batch, _ in own])]
    if listed and lacking:
        raise UserError(
            f"{source}/epoch_{lacking[0]} lacks a batch, so that nothing says which images the others are of"
        )
    first: tuple[str, list[int]] | None = None  # the form, and the views of each batch: of all epochs the same
    right = views = 0
    for number, (epoch, found) in enumerate(epochs.items()):
        folder, batches = found[0][1].parent, [read_batch(path, classes) for _, path in found]
        sizes, mixed = [len(one["flips"]) for one in batches], {len(one["mixes"]) for one in batches}
        form = "kept" if "classes" in batches[0] else "logits"
        if form == "logits" and all(_sum_to_one(one["labels"]) for one in batches):
            form = "probabilities"
        first = first or (form, sizes)
        odd = first != (form, sizes) or {*sizes[:-1]} - {sizes[0]} or sizes[-1] > sizes[0] or len(mixed) > 1
        if odd or any(one.keys() != batches[0].keys() for one in batches):
            raise UserError(f"{folder} has batches of other sizes or labels than the first; expected as many")
        join = {name: torch.stack if name == "mixes" else torch.cat for name in batches[0]}
        parts = {name: joined([one[name] for one in batches]) for name, joined in join.items()}
        for values, most in ((parts["mixes"][:, :1], 1), (parts["mixes"][:, 1:], images.pixels.shape[2])):
            if not bool(((values >= 0) & (values <= most)).all()):
                raise UserError(f"{folder} has a mix beyond its images; expected 0 to {most}")
        if "images" not in parts and listed is None:
            raise UserError(
                f"{source}: the files do not list the images of a batch; add --label-order FILE, their JSON list of "
                "the images of each epoch, or the seed that they are drawn with (--label-order 42 of SRe2L)"
            )
        numbers = parts["images"].long() if listed is None else listed[number][: sum(sizes)]
        if len(numbers) != sum(sizes) or int(numbers.min()) < 0 or int(numbers.max()) >= len(images):
            raise UserError(f"{source}: epoch {epoch} has {sum(sizes)} views, not all of these {len(images)} images")
        indices = places[numbers]
        parts["images"] = indices.to(torch.int16 if len(images) < 2**15 else torch.int32)
        likeliest = parts["labels"].argmax(1)
        if form == "kept":
            kept = kept_classes({"indexes": parts["classes"]})
            if int(kept.min()) < 0 or int(kept.max()) >= classes:
                raise UserError(f"{folder} has classes {kept.min()} to {kept.max()}; expected 0 to {classes - 1}")
            likeliest = kept.gather(1, likeliest[:, None])[:, 0]
        starts = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes)) * sizes[0]
        others = images.labels[indices[starts + parts["partners"].long()]]
        right += int(((likeliest == images.labels[indices]) | (likeliest == others)).sum())
        views += len(indices)
        save_file({name: tensor.contiguous() for name, tensor in parts.items()}, target / shard_name(number))
    assert first is not None
    plan = AugmentationConfig(size=images.pixels.shape[2], crop="given")
    schedule = AugmentationSchedule(plan=plan, images=len(images), epochs=len(epochs), batch_size=first[1][0])
    facts: dict[str, Any] = {
        "schedule": schedule.model_dump(mode="json"), "classes": classes, "form": first[0], "epochs": len(epochs),
        "views": sum(first[1]), "tensors": sorted(parts), "images": images_digest(images),
        "order_hash": real.order_hash, "labeller": PublishedLabels.kind,
    }  # fmt: skip
    text = json.dumps({"kind": PublishedLabels.kind, **facts})
    (target / "source.json").write_text(text + "\n", encoding="utf-8")
    said = f"the likeliest class of {right / views:.0%} of the labels is one that their view shows"
    if 3 / classes < 0.9 and right / views < 3 / classes:  # by chance two of all classes
        raise UserError(f"{source}: {said}, as by chance; the images are in another order, see --label-order")
    return LabelFacts(kind=PublishedLabels.kind, schedule=facts["schedule"]), said


def _numbered(folder: Path) -> Iterator[tuple[int, int, Path]]:
    found = list(folder.glob("epoch_*/batch_*.*"))
    if not found:
        raise UserError(
            f"{folder} holds no epoch_E/batch_B.tar; expected the label files of SRe2L, LPLD, LPQLD or HALD"
        )
    for path in found:
        if not (match := re.fullmatch(r"epoch_(\d+)/batch_(\d+)", f"{path.parent.name}/{path.stem}")):
            raise UserError(f"{path} is none of the files epoch_E/batch_B.tar of numbers E and B; move it elsewhere")
        yield int(match[1]), int(match[2]), path


def _gap(numbers: list[int]) -> bool:
    return numbers[0] > 1 or numbers != [*range(numbers[0], numbers[0] + len(numbers))]


def _listed(order: str, images: int, epochs: list[int]) -> list[Tensor]:
    """Return the images of each epoch, as numbers in ImageFolder's order."""
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
    if len(flat) > len(epochs) and _gap(epochs):
        raise UserError(
            f"--label-order {order} is of all epochs, and some between epoch_{epochs[0]} and "
            f"epoch_{epochs[-1]} have no labels; list the images of the {len(epochs)} that have"
        )
    return flat


def _flat(entry: Any) -> Iterable[int]:
    return (number for one in entry for number in _flat(one)) if isinstance(entry, list) else (entry,)


def _content(path: Path) -> list[Any]:
    safe: list[Any] = [*_HARMLESS, _SCALAR, (_SCALAR, "numpy.core.multiarray.scalar")]
    try:
        with torch.serialization.safe_globals(safe):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise UserError(
            f"{path} can't be read as tensors and numbers: {(str(error) or type(error).__name__).splitlines()[0]}"
        ) from None
    if not isinstance(content, list | tuple):
        raise UserError(
            f"{path} holds a {type(content).__name__}, expected the list of a batch's labels and coordinates"
        )
    return list(content)


def read_batch(path: Path, classes: int) -> Parts:
    """Read one file.

    Raises:
        UserError: it can't be read without running code, or holds no labels and coordinates of so many classes.
    """
    content = _content(path)
    tensors = [one for one in content if isinstance(one, Tensor) and one.dim()]
    flips = next((one for one in tensors if one.dtype == torch.bool and one.dim() == 1), None)
    if flips is None:
        raise UserError(f"{path} holds no flips (bool), expected labels and coordinates of a batch")
    of_views = [one for one in tensors if len(one) == len(flips)]
    floats = [one for one in of_views if one.dim() == 2 and one.is_floating_point()]
    chosen = next((one for one in of_views if one.dim() == 2 and not one.is_floating_point()), None)
    whole = [one for one in of_views if one.dim() == 1 and one.dtype in (torch.int64, torch.uint8, torch.int32)]
    width = classes if chosen is None else chosen.shape[1]
    crops = next((one for one in floats if one.shape[1] == 4 and bool(((one >= 0) & (one <= 1)).all())), None)
    try:
        mixes = _mixes(content, len(flips))
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(
            f"{path} holds something else beside its tensors ({error}); expected numbers of a mix"
        ) from None
    labels = next((one for one in floats if one is not crops and one.shape[1] == width), None)
    if crops is None or labels is None or not whole or bool((whole[0].long() % len(flips) != whole[0]).any()):
        shapes = ", ".join(f"{str(one.dtype)[6:]} {tuple(one.shape)}" for one in tensors)
        raise UserError(
            f"{path} holds {shapes}; expected crops (B, 4), partners (B,) and labels (B, {classes}) of a batch"
        )
    found = {"labels": labels, "crops": crops, "flips": flips, "partners": whole[0], "mixes": mixes}
    return found | ({} if chosen is None else {"classes": chosen}) | ({"images": whole[1]} if len(whole) > 1 else {})


def _mixes(content: list[Any], views: int) -> Tensor:
    """Return the numbers of the mix: none, the weight, or that and rows and columns from, rows and columns to (FKD)."""
    numbers: list[float] = []
    for one in content:
        if isinstance(one, list | tuple) or (isinstance(one, Tensor) and one.shape == (4,) and views != 4):
            numbers += [float(part) for part in one]
        elif one is not None and (not isinstance(one, Tensor) or not one.dim()):
            numbers.append(float(one))
    return torch.tensor(numbers[: 5 if len(numbers) > 4 else 1], dtype=torch.float64)


def _sum_to_one(labels: Tensor) -> bool:
    return bool((labels >= 0).all() and ((labels.float().sum(1) - 1).abs() < 1e-2).all())
