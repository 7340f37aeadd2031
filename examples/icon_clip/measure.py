"""Measure the zero-shot accuracies on the model card of icon-clip.

    python -m examples.icon_clip.measure --data-root DATA --corpus runs/icon-clip

Zero-shot top-1 with the seven prompts of CLIP and the class names of each data set, on its whole test split; a
data set that is not there is skipped. `--corpus` is the folder in which `examples.icon_clip.train` drew the
icons: it adds known concepts in unseen sets. `--weights FOLDER` measures another model than the packaged one.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from rich.console import Console
from torch import Tensor

from bench.api import catalogue
from bench.errors import UserError
from bench.kit.clip.loading import Tokenizer, load_clip_folder, text_embeddings
from bench.kit.clip.naming import ICON_CLIP, ICON_CLIP_FOLDER
from bench.kit.data import load
from examples.icon_clip.augment import normalise
from examples.icon_clip.captions import CLIP_PROMPTS
from examples.icon_clip.corpus import Corpus, read_corpus

SIZE = 32
DATASETS = ("icons-100", "digits", "fashion-mnist")


@torch.no_grad()
def image_features(model: CLIP, images: Tensor) -> Tensor:
    """Embed normalised images (N, 3, 32, 32) as unit vectors (N, D)."""
    return torch.cat([F.normalize(model.encode_image(part), dim=1) for part in images.split(2048)])


def zero_shot(model: CLIP, tokenizer: Tokenizer, images: Tensor, labels: Tensor, names: list[str]) -> float:
    """Return top-1 on uint8 images (N, 3, H, W) of any size against the prompts of C class names."""
    images = images.float() / 255
    if images.shape[-1] != SIZE:
        images = F.interpolate(images, size=SIZE, mode="bilinear", antialias=True, align_corners=False)
    features = image_features(model, (images - 0.5) / 0.5)
    words = text_embeddings(model, tokenizer, names, CLIP_PROMPTS)
    return float(((features @ words.T).argmax(dim=1) == labels).float().mean())


def known_concepts(model: CLIP, tokenizer: Tokenizer, corpus: Corpus, concepts: int = 100) -> tuple[float, int]:
    """Return top-1 among the captions most drawn in training, on the unseen sets, and the number of those icons."""
    usable = corpus.caption >= 0
    known = np.bincount(corpus.caption[~corpus.unseen & usable], minlength=len(corpus.captions))
    there = np.bincount(corpus.caption[corpus.unseen & usable], minlength=len(corpus.captions))
    chosen = np.argsort(-known * (there > 0), kind="stable")[:concepts]
    rows = np.flatnonzero(corpus.unseen & np.isin(corpus.caption, chosen))
    features = image_features(model, normalise(corpus.pixels[torch.from_numpy(rows)]))
    words = text_embeddings(model, tokenizer, [corpus.captions[c] for c in chosen], CLIP_PROMPTS)
    guess = chosen[(features @ words.T).argmax(dim=1).numpy()]
    return float((guess == corpus.caption[rows]).mean()), len(rows)


def images_per_second(model: CLIP, batch: int = 1024, seconds: float = 3.0) -> float:
    """Measure the throughput of the image tower on this machine, at torch's number of threads."""
    images, done = torch.zeros(batch, 3, SIZE, SIZE), 0
    image_features(model, images)
    started = time.perf_counter()
    while time.perf_counter() - started < seconds:
        image_features(model, images)
        done += batch
    return done / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--corpus", type=Path)
    parser.add_argument("--weights", type=Path, default=ICON_CLIP_FOLDER)
    arguments = parser.parse_args()
    console = Console(highlight=False, soft_wrap=True)
    try:
        model, tokenizer, base = load_clip_folder(arguments.weights, "cpu", ICON_CLIP)
    except UserError as error:
        parser.error(str(error))
    console.print(f"{base.bytes} bytes, sha256 {base.sha256}")
    for name in DATASETS:
        try:
            dataset = load(catalogue.dataset(name), arguments.data_root)
        except UserError as error:
            console.print(f"{name}: skipped ({error})")
            continue
        images = torch.cat([images for images, _ in dataset.test.centered(dataset.info.image_size, "cpu")])
        accuracy = zero_shot(model, tokenizer, images, dataset.test.labels, list(dataset.names))
        console.print(f"{name}: zero-shot top-1 {accuracy:.4f}, n = {len(images)}")
    if arguments.corpus is not None:
        accuracy, count = known_concepts(model, tokenizer, read_corpus(arguments.corpus))
        console.print(f"known concepts in unseen sets: zero-shot top-1 {accuracy:.4f}, n = {count}")
    console.print(f"image tower: {images_per_second(model):.0f} images/s, {torch.get_num_threads()} threads")


if __name__ == "__main__":
    main()
