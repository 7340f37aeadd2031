"""How many numbers a projector stores, from the shapes of a ResNet tower of CLIP alone. Torch-free.

:mod:`methods.hello.lora` makes the updates; which weights have one and in which shapes is decided here for both.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from bench.api import LabelSize
from bench.kit.clip.naming import ICON_CLIP, ICON_CLIP_FOLDER
from methods.hello.config import Config, Convention, Layers

Rule = Callable[[str, bool], bool]

# name of a convolution, is it 3 x 3 -> has it an update? Names are open_clip's ModifiedResNet's: the stem's
# convolutions have no parent, down-samples are called that.
RULES: dict[Layers, Rule] = {
    "3x3": lambda name, is_3x3: is_3x3,
    "3x3-blocks": lambda name, is_3x3: is_3x3 and not _in_stem(name),
    "all": lambda name, is_3x3: True,
    "no-downsample": lambda name, is_3x3: not _is_downsample(name),
    "no-stem": lambda name, is_3x3: not _in_stem(name),
    "blocks": lambda name, is_3x3: not _in_stem(name) and not _is_downsample(name),
    "layers-3-4": lambda name, is_3x3: name.startswith(("layer3.", "layer4.")),
}


def _in_stem(name: str) -> bool:
    return "." not in name


def _is_downsample(name: str) -> bool:
    return ".downsample." in name


def factor_shapes(weight: Sequence[int], rank: int, convention: Convention) -> tuple[tuple[int, int], tuple[int, int]]:
    """The shapes of A and B for a weight of shape (out, in) or (out, in, k, k)."""
    out, inner = weight[0], weight[1]
    high, wide = (weight[2], weight[3]) if len(weight) == 4 else (1, 1)
    if convention == "peft":
        return (rank, inner * high * wide), (out, rank)
    through = rank * high if convention == "loralib" else rank
    return (through, inner * wide), (out * high, through)


def update_numbers(weight: Sequence[int], rank: int, convention: Convention) -> int:
    """How many numbers the update of one weight has."""
    a, b = factor_shapes(weight, rank, convention)
    return math.prod(a) + math.prod(b)


@dataclass(frozen=True)
class Tower:
    """The image tower of a CLIP with a modified ResNet (openai/CLIP, model.py): a stem of three 3 x 3 convolutions,
    bottlenecks that end four times as wide, attention pooling."""

    width: int
    layers: tuple[int, ...]  # blocks of each stage
    image_size: int
    features: int

    def convolutions(self) -> Iterator[tuple[str, tuple[int, int, int, int]]]:
        """Name and shape (out, in, k, k) of every convolution."""
        half = self.width // 2
        yield "conv1", (half, 3, 3, 3)
        yield "conv2", (half, half, 3, 3)
        yield "conv3", (self.width, half, 3, 3)
        inner = self.width
        for stage, blocks in enumerate(self.layers):
            planes = self.width << stage
            for block in range(blocks):
                place = f"layer{stage + 1}.{block}"
                yield f"{place}.conv1", (planes, inner, 1, 1)
                yield f"{place}.conv2", (planes, planes, 3, 3)
                yield f"{place}.conv3", (4 * planes, planes, 1, 1)
                if block == 0:
                    yield f"{place}.downsample.0", (4 * planes, inner, 1, 1)
                inner = 4 * planes

    def attention(self) -> Iterator[tuple[int, int]]:
        """The shapes of the attention pool's projections: queries, keys, values, output."""
        inner = 32 * self.width
        yield from ((inner, inner),) * 3
        yield self.features, inner

    @property
    def parameters(self) -> int:
        """All of the tower: convolutions, a weight and a bias a channel of each batch norm, the attention pool with
        its places."""
        convs = sum(math.prod(shape) + 2 * shape[0] for _, shape in self.convolutions())
        places = ((self.image_size // 32) ** 2 + 1) * 32 * self.width
        return convs + places + sum(out * inner + out for out, inner in self.attention())


def tower(clip: str) -> Tower | None:
    """The image tower of a public CLIP, where its shapes are known without loading it."""
    if clip == ICON_CLIP:
        facts = json.loads((ICON_CLIP_FOLDER / "config.json").read_text(encoding="utf-8"))["model_cfg"]
        vision = facts["vision_cfg"]
        return Tower(vision["width"], tuple(vision["layers"]), vision["image_size"], facts["embed_dim"])
    if clip.partition(":")[0] == "RN50":
        return Tower(64, (3, 4, 6, 3), 224, 1024)
    return None


def label_size(config: Config, clip: str, classes: int) -> LabelSize | None:
    """What a projector on a public CLIP stores for so many classes; None of a CLIP whose shapes are not known here."""
    known = tower(clip)
    if known is None:
        return None
    numbers = int(config.learn_scale)
    if config.adapt == "lora":
        rule = RULES[config.layers]
        shapes: list[Sequence[int]] = [shape for name, shape in known.convolutions() if rule(name, shape[2:] == (3, 3))]
        shapes += known.attention() if config.attention_pool else ()
        numbers += sum(update_numbers(shape, config.conv_rank, config.convention) for shape in shapes)
    head = (classes, known.features)
    numbers += math.prod(head) if config.head == "full" else update_numbers(head, config.rank(*head), config.convention)
    return LabelSize(numbers, 2 if config.store_dtype == "float16" else 4, known.parameters)
