"""Static labels: one soft label per image, used for every view of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from bench.api import Images, LabelSource, Progress
from bench.api.stored.codec import LabelCodec
from bench.kit.checkpoint import Checkpoint
from bench.kit.labels.codecs import codec_for
from bench.kit.labels.numbers import Parts
from bench.kit.labels.stored import MadeFor
from bench.kit.validation import check_finite, check_logits
from bench.kit.views import AugmentationConfig, AugmentationStream, AugmentedBatch

_LABELS = "labels.safetensors"
_AT_ONCE = 100  # images


class StaticLabels(LabelSource):
    """A table of logits, a row per image; a mixed view gets the mean of both rows by their shares."""

    kind: ClassVar[str] = "static"

    def __init__(self, parts: Parts, codec: LabelCodec, classes: int, made_for: MadeFor, device: torch.device):
        """Decode ``parts``: the encoded logits, N rows each, on the host."""
        self.parts, self.codec, self.classes, self.made_for = parts, codec, classes, made_for
        self.complete = codec.complete(classes)
        self.logits = codec_for(codec, classes).decode({name: part.to(device) for name, part in parts.items()})

    def check(self, images: Images, order_hash: str) -> None:
        self.made_for.check(images, order_hash)
        check_logits(self.logits, len(images), self.classes, "a label file")

    def soft_labels(self, views: AugmentedBatch, step: int) -> Tensor:
        base = self.logits.index_select(0, views.indices)
        if views.weight == 1:
            return base
        return torch.lerp(self.logits.index_select(0, views.partner_indices), base, views.weight)

    def save(self, folder: Path) -> None:
        codec = self.codec.facts()
        facts = {"kind": self.kind, "codec": codec, "classes": self.classes, **self.made_for.facts()}
        (folder / "source.json").write_text(json.dumps(facts) + "\n", encoding="utf-8")
        save_file(self.parts, folder / _LABELS)

    @classmethod
    def load(cls, folder: Path, device: torch.device) -> Self:
        facts: dict[str, Any] = json.loads((folder / "source.json").read_text(encoding="utf-8"))
        codec, made_for = LabelCodec(**facts["codec"]), MadeFor.read(facts)
        return cls(load_file(folder / _LABELS), codec, facts["classes"], made_for, device)


@torch.no_grad()
def static_labels(
    label_model: LabelSource,
    images: Images,
    codec: LabelCodec,
    order_hash: str,
    size: int,
    work: Path,
    device: torch.device,
    progress: Progress,
) -> StaticLabels:
    """Ask ``label_model`` for its answers to the images as they are, at ``size`` pixels a side.

    A call after a kill continues from what is in ``work``, to the same bits; ``order_hash`` is the SHA-256 of the class
    ids that the label model knows.

    Raises:
        UserError: the codec is none for static labels.
    """
    codec.check_static()
    stream = AugmentationStream(AugmentationConfig(size=size, crop="none"), len(images))
    pixels, labels = images.pixels.to(device), images.labels.to(device)
    checkpoint, answers, first = Checkpoint(work), [], 0
    if found := checkpoint.load():
        answers, first = [found[0]["logits"].to(device)], found[1]["batches"]
    batches = torch.arange(len(images)).split(_AT_ONCE)
    for batch, chosen in enumerate(batches[first:], first):
        answers.append(label_model.soft_labels(stream.make(pixels, labels, chosen, 0, batch), batch))
        progress(batch + 1, len(batches))
        if checkpoint.due():
            checkpoint.save({"logits": torch.cat(answers)}, batches=batch + 1)
    classes = answers[0].shape[1]
    codec.check(classes, 1, "this image set")
    encoded = [codec_for(codec, classes).encode(answer) for answer in answers]
    parts = {name: torch.cat([part[name] for part in encoded]).cpu() for name in encoded[0]}
    check_finite({"logits": torch.cat(answers)}, f"what {label_model.kind} labels give, stored as {codec},")
    return StaticLabels(parts, codec, classes, MadeFor.of(images, order_hash, label_model), device)
