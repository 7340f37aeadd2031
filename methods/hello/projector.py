"""The projector: an adapted CLIP image tower and a linear head, as a module and as a label source.

On disk ``source.json`` names the public CLIP with its SHA-256, the class names and the settings;
``adapters.safetensors`` holds what was trained, by default the low-rank matrices alone: the head's start is made again
from the class names by the public CLIP's text tower.
"""

from __future__ import annotations

import json
import logging
import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Self

import open_clip
import torch
from open_clip import CLIP
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.modified_resnet import ModifiedResNet
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from bench.api import BaseConfig, FrozenBackbone, LabelSize, LabelSource
from bench.kit.clip.loading import Tokenizer, load_same_clip, text_embeddings
from bench.kit.clip.naming import ICON_CLIP, ICON_CLIP_FOLDER
from bench.kit.views import AugmentedBatch
from methods.hello import lora
from methods.hello.config import ProjectorConfig

_ADAPTERS = "adapters.safetensors"


class Normalise(nn.Module):
    """Pixels (B, 3, H, W) in [0, 1] as an image tower wants them, channels last."""

    gain: Tensor
    shift: Tensor

    def __init__(self, visual: nn.Module, device: torch.device | None = None):
        super().__init__()
        # a bare open_clip.CLIP does not say how it wants pixels; open_clip's default for that is OpenAI's
        mean, std = (
            torch.tensor(getattr(visual, name, default), device=device).view(1, 3, 1, 1)
            for name, default in (("image_mean", OPENAI_DATASET_MEAN), ("image_std", OPENAI_DATASET_STD))
        )
        self.register_buffer("gain", 1 / std, persistent=False)
        self.register_buffer("shift", -mean / std, persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        return torch.addcmul(self.shift, pixels, self.gain).contiguous(memory_format=torch.channels_last)


class Projector(nn.Module):
    """Pixels (B, 3, H, W) in [0, 1] of any size -> logits (B, C).

    They are resized to what the tower takes (bilinear, antialiased when they shrink). All is frozen but what the
    settings train; nothing is ever in training mode.
    """

    def __init__(self, visual: nn.Module, head: Tensor, log_scale: Tensor, config: ProjectorConfig):
        super().__init__()
        self.tower = visual.eval().requires_grad_(False)
        self.head = nn.Linear(head.shape[1], head.shape[0], bias=False, device=head.device)
        self.head.weight = nn.Parameter(head, requires_grad=config.head == "full")
        self.log_scale = nn.Parameter(log_scale.detach().clone(), requires_grad=config.learn_scale)
        self.raw = config.features == "raw"
        size: Any = visual.image_size
        self.size: tuple[int, int] = (size, size) if isinstance(size, int) else tuple(size)
        self.normalise = Normalise(visual, head.device)

    def features(self, pixels: Tensor) -> Tensor:
        """Return image features (B, D) as the head takes them."""
        pixels = self.normalise(pixels)
        if pixels.shape[2:] != self.size:
            shrinks = pixels.shape[2] > self.size[0] or pixels.shape[3] > self.size[1]
            pixels = F.interpolate(pixels, self.size, mode="bilinear", antialias=shrinks)
        found: Tensor = self.tower(pixels)
        return found if self.raw else F.normalize(found, dim=-1)

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(pixels))
        return logits if self.raw else logits * self.log_scale.exp()


def build(clip: CLIP, tokenizer: Tokenizer, names: Sequence[str], config: ProjectorConfig, seed: int = 0) -> Projector:
    """Build the projector before training.

    From the text start it predicts what CLIP's zero-shot classifier does, class probabilities included (Proposition 1);
    centring takes the same number from all logits of an image.

    Args:
        clip: the public CLIP; its image tower is taken over and altered.
        names: the classes as prompts name them, in class order.
    """
    generator = torch.Generator().manual_seed(seed)
    head = text_embeddings(clip, tokenizer, names, config.templates)
    if config.centre:
        head = head - head.mean(0)
    if config.init == "random":
        drawn = torch.empty(head.shape).uniform_(-1, 1, generator=generator) / head.shape[1] ** 0.5
        # a low-rank head starts from zero instead: any other start would have to be stored
        head = drawn.to(head.device) if config.head == "full" else torch.zeros_like(head)
    visual: nn.Module = clip.visual
    gains = fold_batch_norms(visual) if isinstance(visual, ModifiedResNet) else {}
    projector = Projector(visual, head, clip.logit_scale, config)
    if config.adapt == "lora":
        chosen = lora.select(visual, config.layers, config.attention_pool)
        lora.attach(visual, chosen, config.conv_rank, config.convention, config.alpha, gains, generator)
    if config.head == "low-rank":
        rank = config.rank(*head.shape)
        lora.attach(projector, ["head.weight"], rank, config.convention, config.alpha, {}, generator)
    return projector


@torch.no_grad()
def fold_batch_norms(tower: ModifiedResNet) -> dict[str, Tensor]:
    """Fold every batch norm, frozen as it is, into the convolution before it, in place.

    It is the same function with less to read and write. Returned is the factor (out,) of each convolution's weight, by
    the weight's name.
    """
    gains = {}
    modules = dict(tower.named_modules())
    for name, conv in modules.items():
        if not isinstance(conv, nn.Conv2d):
            continue
        parent, _, own = name.rpartition(".")
        after = "1" if own == "0" else own.replace("conv", "bn")  # conv2 -> bn2; downsample.0 -> downsample.1
        norm = modules[f"{parent}.{after}".lstrip(".")]
        assert isinstance(norm, nn.BatchNorm2d)
        assert norm.running_mean is not None and norm.running_var is not None
        gain = norm.weight * (norm.running_var + norm.eps).rsqrt()
        conv.weight.mul_(gain[:, None, None, None])
        conv.bias = nn.Parameter(norm.bias - norm.running_mean * gain, requires_grad=False)
        setattr(modules[parent], after, nn.Identity())
        gains[f"{name}.weight"] = gain
    return gains


@cache
def _tower(clip: str) -> tuple[nn.Module, int] | None:
    """Return the image tower of a public CLIP, without weights, and how many features it has; None: unknown."""
    if clip == ICON_CLIP:
        config = json.loads((ICON_CLIP_FOLDER / "config.json").read_text(encoding="utf-8"))["model_cfg"]
        with torch.device("meta"):
            return CLIP(**config).visual, config["embed_dim"]
    if (known := open_clip.get_model_config(arch := clip.partition(":")[0])) is None:
        return None
    logging.disable(logging.WARNING)  # open_clip warns of a model without weights
    try:
        return open_clip.create_model(arch, pretrained=None, device="meta").visual, known["embed_dim"]
    finally:
        logging.disable(logging.NOTSET)


def label_size(config: ProjectorConfig, clip: str, classes: int) -> LabelSize | None:
    """Count what a projector on a public CLIP stores for so many classes; None: of an unknown CLIP."""
    if (found := _tower(clip)) is None:
        return None
    tower, features = found
    head, shapes = (classes, features), dict[str, tuple[int, ...]]()
    if config.learn_scale:
        shapes["log_scale"] = ()
    if config.adapt == "lora":
        chosen = lora.select(tower, config.layers, config.attention_pool)
        sizes = {f"tower.{name}": tower.get_parameter(name).shape for name in chosen}
        shapes |= lora.stored_shapes(sizes, config.conv_rank, config.convention)
    if config.head == "full":
        shapes["head.weight"] = head
    else:
        shapes |= lora.stored_shapes({"head.weight": head}, config.rank(*head), config.convention)
    itemsize, public = 2 if config.store_dtype == "float16" else 4, sum(p.numel() for p in tower.parameters())
    return LabelSize(sum(map(math.prod, shapes.values())), itemsize, public, shapes)


def stored_tensors(projector: Projector, config: ProjectorConfig) -> dict[str, Tensor]:
    """Return what was trained of a projector as it is stored, rounding included, on the host."""
    dtype: torch.dtype = getattr(torch, config.store_dtype)
    return {name: p.detach().to("cpu", dtype) for name, p in lora.adapters(projector).items()}


class AdaptedClip(LabelSource):
    """A public CLIP and what was trained of a projector on it; counted are these tensors, settings and class names."""

    Config: ClassVar[type[BaseConfig]]

    def __init__(
        self, clip: str, base: FrozenBackbone, config: Any, tensors: dict[str, Tensor], device: torch.device,
        names: Sequence[str] = (),
    ):  # fmt: skip
        """Build what is served from what is stored; ``clip`` is what :func:`load_same_clip` finds ``base`` by.

        Raises:
            UserError: the public CLIP is not available or is another one, or the adapters do not fit it.
        """
        self.clip, self.base, self.config, self.tensors, self.names = clip, base, config, tensors, tuple(names)
        model, trained = self.built(*load_same_clip(clip, base, device))
        lora.restore(trained, tensors, base.name)
        lora.merge(model)
        model.eval().to(memory_format=torch.channels_last)

    @abstractmethod
    def built(self, clip: CLIP, tokenizer: Tokenizer) -> tuple[nn.Module, Mapping[str, Tensor]]:
        """Build and keep the projector before training; return it and its stored tensors by name."""

    def save(self, folder: Path) -> None:
        facts = {"kind": self.kind, "clip": self.clip, "public": asdict(self.base), "config": self.config.structure()}
        facts |= {"names": self.names} if self.names else {}
        text = json.dumps(facts, ensure_ascii=False, separators=(",", ":"))
        (folder / "source.json").write_text(text + "\n", encoding="utf-8")
        save_file({name: t.contiguous() for name, t in self.tensors.items()}, folder / _ADAPTERS)

    @classmethod
    def load(cls, folder: Path, device: torch.device) -> Self:
        facts = json.loads((folder / "source.json").read_text(encoding="utf-8"))
        base, config, tensors = FrozenBackbone(**facts["public"]), facts["config"], load_file(folder / _ADAPTERS)
        return cls(facts["clip"], base, cls.Config(**config), tensors, device, facts.get("names", ()))

    def public(self) -> tuple[FrozenBackbone, ...]:
        return (self.base,)

    def parameters(self) -> int:
        return sum(t.numel() for t in self.tensors.values())


class ProjectorLabels(AdaptedClip):
    """The projector's labels for any view."""

    kind: ClassVar[str] = "projector"
    Config = ProjectorConfig

    def built(self, clip: CLIP, tokenizer: Tokenizer) -> tuple[nn.Module, Mapping[str, Tensor]]:
        self.projector = build(clip, tokenizer, self.names, self.config)
        return self.projector, lora.adapters(self.projector)

    @torch.no_grad()
    def soft_labels(self, views: AugmentedBatch, step: int) -> Tensor:
        return self.projector(views.pixels)  # type: ignore[no-any-return]

    @torch.no_grad()
    def features(self, views: AugmentedBatch, step: int) -> tuple[Tensor, Tensor, Tensor]:
        head = self.projector.head.weight
        weight = head if self.projector.raw else head * self.projector.log_scale.exp()
        return self.projector.features(views.pixels), weight, weight.new_zeros(len(weight))
