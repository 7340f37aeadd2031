"""Trains icon-clip, the small public CLIP that travels with this package, from icons and their names.

    python -m bench.kit.clip.train_icon_clip --source iconify-json-2.2.535.tgz --out runs/icon-clip

`--source` is the npm package `@iconify/json` (`npm pack @iconify/json`). Icons are drawn once into
`OUT/pixels.npy`; every epoch ends with a checkpoint, from which the same command goes on, and with
`OUT/model.safetensors` (fp16) and `OUT/config.json`, which `load_clip` reads. What was measured: `icon_clip/README.md`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from safetensors.torch import load_file, save_file
from torch import Tensor

from bench.kit.clip.icon_augment import MEAN, STD, augment, normalise
from bench.kit.clip.icon_captions import Captions, one_name
from bench.kit.data.icon_sets import Icon, rasterise_many
from bench.kit.data.icons import TrainingPairs, training_pairs

MODEL_CFG: dict[str, Any] = {
    "embed_dim": 128,
    "vision_cfg": {"image_size": 32, "layers": [1, 2, 2, 2], "width": 16},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 64, "heads": 4, "layers": 2},
}
PREPROCESS_CFG = {"size": 32, "mean": [MEAN] * 3, "std": [STD] * 3, "interpolation": "bicubic"}
SIZE = 32
LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, as PIL makes grey


@dataclass(frozen=True)
class Recipe:
    """Everything but the data that decides the weights."""

    epochs: int = 18
    batch: int = 1024
    seed: int = 0
    lr: float = 2e-3
    weight_decay: float = 0.1
    warm_up: float = 0.05  # of all steps
    limit: int = 0  # train on the first so many icons only; 0: on all


@dataclass(frozen=True)
class Corpus:
    """Icons as grey pixels (N, 32, 32) uint8, the caption index of each, and which of them are of unseen sets."""

    pixels: Tensor
    caption: np.ndarray[Any, np.dtype[np.int64]]
    captions: list[str]
    unseen: np.ndarray[Any, np.dtype[np.bool_]]


def draw_corpus(source: Path, out: Path, recipe: Recipe, processes: int) -> Corpus:
    """Draws every icon once; a second call reads the drawings back, if package and limit are the same."""
    pairs = training_pairs(source)
    train = _shuffled(pairs, recipe)
    wanted = [*train, *pairs.unseen]
    key = hashlib.sha256("\n".join(f"{icon.set}:{icon.name}" for icon, _ in wanted).encode()).hexdigest()
    index = out / "pixels.json"
    if not index.exists() or json.loads(index.read_text())["key"] != key:
        index.unlink(missing_ok=True)
        store = np.lib.format.open_memmap(
            out / "pixels.npy", mode="w+", dtype=np.uint8, shape=(len(wanted), SIZE, SIZE)
        )
        failed: dict[int, str] = {}
        for row, pixels in rasterise_many([icon for icon, _ in wanted], SIZE, processes, _every(20_000, "drawn")):
            if isinstance(pixels, str):
                failed[row] = pixels
            else:
                store[row] = np.round(pixels @ LUMA)
        store.flush()
        print(f"drew {len(wanted) - len(failed)} icons, {len(failed)} would not draw", flush=True)
        _write(index, {"key": key, "failed": failed, "held_out": pairs.held_out, "unseen": len(pairs.unseen)})
    drawn = np.ones(len(wanted), dtype=bool)
    drawn[[int(row) for row in json.loads(index.read_text())["failed"]]] = False
    named = [one_name(caption) for _, caption in wanted]
    captions = sorted(set(named))
    number = {caption: position for position, caption in enumerate(captions)}
    caption = np.array([number[name] for name in named], dtype=np.int64)
    unseen = np.arange(len(wanted)) >= len(train)
    caption[~drawn] = -1
    return Corpus(torch.from_numpy(np.load(out / "pixels.npy", mmap_mode="c")), caption, captions, unseen)


def _shuffled(pairs: TrainingPairs, recipe: Recipe) -> list[tuple[Icon, str]]:
    order = np.random.default_rng(0).permutation(len(pairs.train))
    return [pairs.train[i] for i in order[: recipe.limit or None]]


def train(corpus: Corpus, recipe: Recipe, out: Path) -> None:
    """Contrastive training: an icon against every caption of its batch and back, same captions being one."""
    torch.manual_seed(recipe.seed)
    model = CLIP(**MODEL_CFG)
    model.visual = model.visual.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(_parameter_groups(model, recipe), lr=recipe.lr, betas=(0.9, 0.98), fused=True)
    captions = Captions(corpus.captions, MODEL_CFG["text_cfg"]["context_length"])
    rows = np.flatnonzero(~corpus.unseen & (corpus.caption >= 0))
    steps = len(rows) // recipe.batch
    done = _resume(model, optimizer, out, recipe)
    for epoch in range(done, recipe.epochs):
        # All randomness of an epoch comes from (seed, epoch): going on from a checkpoint changes nothing.
        rng = np.random.default_rng([recipe.seed, epoch])
        generator = torch.Generator().manual_seed(recipe.seed * 1000 + epoch)
        order = rng.permutation(rows)
        started, said, losses = time.perf_counter(), time.perf_counter(), []
        model.train()
        for step in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = recipe.lr * _schedule((epoch * steps + step) / (recipe.epochs * steps), recipe)
            batch = order[step * recipe.batch : (step + 1) * recipe.batch]
            names, target = np.unique(corpus.caption[batch], return_inverse=True)
            images = augment(corpus.pixels[torch.from_numpy(batch)], generator)
            with torch.autocast("cpu", torch.bfloat16):
                seen = model.encode_image(images)
                read = model.encode_text(captions.sample(names.tolist(), rng))
            loss = contrastive_loss(seen, read, torch.from_numpy(target), model.logit_scale)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            with torch.no_grad():
                model.logit_scale.clamp_(0, math.log(100))  # as CLIP does
            losses.append(loss.detach())
            if time.perf_counter() - said > 60:
                said = time.perf_counter()
                rate = (step + 1) * recipe.batch / (said - started)
                recent = float(torch.stack(losses[-50:]).mean())
                print(f"epoch {epoch + 1} step {step + 1}/{steps} loss {recent:.3f} {rate:.0f} images/s", flush=True)
        save_checkpoint(model, optimizer, epoch + 1, recipe, out)
        export(model, out)
        seconds = time.perf_counter() - started
        accuracy, count = unseen_set_accuracy(model, corpus)
        print(
            f"epoch {epoch + 1}/{recipe.epochs} done: loss {float(torch.stack(losses).mean()):.3f}, "
            f"{steps * recipe.batch / seconds:.0f} images/s, scale {float(model.logit_scale.detach().exp()):.1f}, "
            f"known concepts in unseen sets {accuracy:.3f} of {count}",
            flush=True,
        )


def contrastive_loss(seen: Tensor, read: Tensor, target: Tensor, logit_scale: Tensor) -> Tensor:
    """seen (B, D), read (U, D), target (B,) in [0, U): mean of image-to-text and text-to-image cross-entropy."""
    logits = logit_scale.exp() * F.normalize(seen.float(), dim=1) @ F.normalize(read.float(), dim=1).T
    to_text = F.cross_entropy(logits, target)
    # A caption can have several icons in the batch: each is right, so it is the mean over them.
    own = F.log_softmax(logits, dim=0).gather(1, target[:, None])[:, 0]
    icons = torch.bincount(target, minlength=len(read))
    to_image = -(own / icons[target]).sum() / len(read)
    return (to_text + to_image) / 2


def _schedule(progress: float, recipe: Recipe) -> float:
    if progress < recipe.warm_up:
        return progress / recipe.warm_up
    return 0.5 * (1 + math.cos(math.pi * (progress - recipe.warm_up) / (1 - recipe.warm_up)))


def _parameter_groups(model: CLIP, recipe: Recipe) -> list[dict[str, Any]]:
    # The token table is left out of weight decay too: decay would erase the words that are seldom drawn.
    free = {name for name, value in model.named_parameters() if value.ndim < 2 or "embedding" in name}
    return [
        {
            "params": [value for name, value in model.named_parameters() if (name in free) == is_free],
            "weight_decay": 0.0 if is_free else recipe.weight_decay,
        }
        for is_free in (True, False)
    ]


@torch.no_grad()
def unseen_set_accuracy(model: CLIP, corpus: Corpus, concepts: int = 100) -> tuple[float, int]:
    """Top-1 among the 100 commonest captions of training, on icons of the sets held back: (accuracy, icons)."""
    from open_clip.tokenizer import SimpleTokenizer

    known = np.bincount(corpus.caption[~corpus.unseen & (corpus.caption >= 0)], minlength=len(corpus.captions))
    there = np.bincount(corpus.caption[corpus.unseen & (corpus.caption >= 0)], minlength=len(corpus.captions))
    chosen = np.argsort(-known * (there > 0), kind="stable")[:concepts]
    rows = np.flatnonzero(corpus.unseen & np.isin(corpus.caption, chosen))
    model.eval()
    tokenizer = SimpleTokenizer(context_length=MODEL_CFG["text_cfg"]["context_length"])
    words = model.encode_text(tokenizer([f"a photo of a {corpus.captions[c]}." for c in chosen]), normalize=True)
    hits = 0
    for part in np.array_split(rows, max(1, len(rows) // 2048)):
        guess = (model.encode_image(normalise(corpus.pixels[torch.from_numpy(part)]), normalize=True) @ words.T).argmax(1)
        hits += int((chosen[guess.numpy()] == corpus.caption[part]).sum())
    return hits / max(1, len(rows)), len(rows)


def save_checkpoint(
    model: CLIP, optimizer: torch.optim.Optimizer, epoch: int, recipe: Recipe, out: Path
) -> None:
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    for number, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{number}.{name}": value for name, value in state.items()}
    tensors = {name: value.contiguous() for name, value in tensors.items()}
    temporary = out / "checkpoint.tmp"
    save_file(tensors, temporary, metadata={"epoch": str(epoch), "recipe": json.dumps(asdict(recipe))})
    os.replace(temporary, out / "checkpoint.safetensors")


def _resume(model: CLIP, optimizer: torch.optim.Optimizer, out: Path, recipe: Recipe) -> int:
    """Epochs already done by the same recipe; a checkpoint of another recipe is not used."""
    from safetensors import safe_open

    path = out / "checkpoint.safetensors"
    if not path.exists():
        return 0
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    if json.loads(metadata["recipe"]) != asdict(recipe):
        print("the checkpoint is of another recipe; starting over", flush=True)
        return 0
    tensors = load_file(path)
    model.load_state_dict({name[6:]: value for name, value in tensors.items() if name.startswith("model.")})
    state = optimizer.state_dict()
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, number, field = name.split(".")
            # The fused optimizer walks memory, so a moment must lie in memory as its parameter does.
            like = value if value.ndim == 0 else torch.empty_like(parameters[int(number)]).copy_(value)
            state["state"].setdefault(int(number), {})[field] = like
    optimizer.load_state_dict(state)
    return int(metadata["epoch"])


def export(model: CLIP, out: Path) -> None:
    """The fp16 weights and the configuration, as they ship."""
    weights = {name: value.half().contiguous() for name, value in model.state_dict().items()}
    temporary = out / "model.tmp"
    save_file(weights, temporary, metadata={"format": "pt"})
    os.replace(temporary, out / "model.safetensors")
    _write(out / "config.json", {"model_cfg": MODEL_CFG, "preprocess_cfg": PREPROCESS_CFG})


def _write(path: Path, value: Any) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def _every(count: int, verb: str) -> Any:
    def say(done: int, total: int) -> None:
        if done % count == 0:
            print(f"{verb} {done}/{total}", flush=True)

    return say


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--source", type=Path, required=True, help="@iconify/json, as .tgz or unpacked folder")
    parser.add_argument("--out", type=Path, required=True)
    for name, default in asdict(Recipe()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    arguments = vars(parser.parse_args())
    source, out, threads = arguments.pop("source"), arguments.pop("out"), arguments.pop("threads")
    torch.set_num_threads(threads)
    out.mkdir(parents=True, exist_ok=True)
    recipe = Recipe(**arguments)
    train(draw_corpus(source, out, recipe, threads), recipe, out)


if __name__ == "__main__":
    main()
