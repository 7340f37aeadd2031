"""Named public CLIPs and their text embeddings of class names.

    model, tokenizer, base = load_clip("icon-clip", "cpu")
    words = text_embeddings(model, tokenizer, ["shopping bag", "shirt"], templates)      # (2, 128)

Names: `icon-clip` (its weights are in this package); `ARCH:TAG` of open_clip, e.g. `RN50:openai`, fetched once
into open_clip's cache, or a file (see :mod:`bench.kit.clip.weights`); `ARCH:none`, random weights from a seed, to
measure costs with. The model is fp32 and in eval mode, whatever the file holds; `model.visual` has
`image_size`, `image_mean` and `image_std`. Of each comes the tokenizer, list of B strings -> (B, context) int64, and
the backbone to count it as.
"""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path

import open_clip
import torch
import torch.nn.functional as F
from open_clip.model import CLIP, set_model_preprocess_cfg
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from bench.api import FrozenBackbone
from bench.api.seeds import seed_for
from bench.errors import UserError
from bench.kit.clip.naming import ICON_CLIP, ICON_CLIP_FOLDER, UNTRAINED, file_digest, split
from bench.kit.clip.weights import find

Tokenizer = Callable[[list[str]], Tensor]


def load_clip(name: str, device: torch.device | str) -> tuple[CLIP, Tokenizer, FrozenBackbone]:
    """Load a named model.

    Raises:
        UserError: the name is unknown, or its weights are not available or another architecture's.
    """
    if name == ICON_CLIP:
        return load_clip_folder(ICON_CLIP_FOLDER, device, ICON_CLIP)
    arch = name.partition(":")[0]
    if name == f"{arch}:{UNTRAINED}" and arch in open_clip.list_models():
        with torch.random.fork_rng(devices=[]):  # the same weights in every process
            torch.manual_seed(seed_for("untrained-clip", arch))
            model: CLIP = open_clip.create_model(arch, precision="fp32", device="cpu")
        return _ready(model, device), open_clip.get_tokenizer(arch), _base_of_weights(name, model)
    found = find(name)
    path, settings = found.fetch(), found.settings
    try:
        model = open_clip.create_model(
            arch,
            pretrained=str(path),
            precision="fp32",
            force_quick_gelu=bool(settings.get("quick_gelu")),
            force_preprocess_cfg=settings,
        )
    except (RuntimeError, OSError, SafetensorError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise UserError(
            f"{path}: not the weights of {arch} ({str(error).splitlines()[0][:120]}); fetch the file again or name "
            "the architecture that it was made for"
        ) from None
    label = f"{arch}:{path.name}" if split(name)[2] else name
    return _ready(model, device), open_clip.get_tokenizer(arch), _public_base(label, path)


def load_same_clip(name: str, base: FrozenBackbone, device: torch.device | str) -> tuple[CLIP, Tokenizer]:
    """Load the model and tokenizer that labels were made with, by ``name`` as :func:`load_clip` does.

    Raises:
        UserError: it is not available, or its weights are not those of ``base``.
    """
    model, tokenizer, found = load_clip(name, device)
    if found.sha256 != base.sha256:
        raise UserError(
            f"the public CLIP {base.name!r} here has SHA-256 {found.sha256[:12]}…, but these labels were "
            f"made on {base.sha256[:12]}…; get that one, or make the labels again (--force label)"
        )
    return model, tokenizer


def load_clip_folder(folder: Path, device: torch.device | str, name: str) -> tuple[CLIP, Tokenizer, FrozenBackbone]:
    """Load a model from `model.safetensors` and `config.json`, the files of icon-clip."""
    path = folder / "model.safetensors"
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        model = CLIP(**config["model_cfg"])
        model.load_state_dict({key: value.float() for key, value in load_file(path).items()})
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(
            f"{folder}: no usable model there ({str(error).splitlines()[0][:120]}); expected config.json and "
            "model.safetensors, so install the package again"
        ) from None
    set_model_preprocess_cfg(model, config["preprocess_cfg"])
    tokenizer = open_clip.SimpleTokenizer(context_length=model.context_length)
    return _ready(model, device), tokenizer, _public_base(name, path)


def _base_of_weights(name: str, model: CLIP) -> FrozenBackbone:
    """Count weights that are in no file as if they were, without its header, and digest their bytes."""
    tensors = [tensor.contiguous().view(-1).view(torch.uint8).numpy() for tensor in model.state_dict().values()]
    sha256 = hashlib.sha256()
    for tensor in tensors:
        sha256.update(tensor.data)
    return FrozenBackbone(name=name, sha256=sha256.hexdigest(), bytes=sum(tensor.nbytes for tensor in tensors))


def _ready(model: CLIP, device: torch.device | str) -> CLIP:
    return model.float().eval().requires_grad_(False).to(device)


def _public_base(name: str, path: Path) -> FrozenBackbone:
    return FrozenBackbone(name=name, sha256=file_digest(path), bytes=path.stat().st_size)


@torch.no_grad()
def text_embeddings(model: CLIP, tokenizer: Tokenizer, class_names: Sequence[str], templates: Sequence[str]) -> Tensor:
    """Embed classes as unit vectors (C, D) float32: the normalised mean of normalised sentence embeddings.

    Args:
        class_names: C human-readable names, in class order.
        templates: sentences with one `{}` each for the name.
    """
    device = model.logit_scale.device
    rows = []
    for name in class_names:
        tokens = tokenizer([template.format(name) for template in templates]).to(device)
        rows.append(F.normalize(model.encode_text(tokens).float(), dim=-1).mean(dim=0))
    return F.normalize(torch.stack(rows), dim=-1)
