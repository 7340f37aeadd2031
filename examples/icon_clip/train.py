"""Train icon-clip, the small public CLIP in this package, from icons and their names.

    python -m examples.icon_clip.train --source iconify-json-2.2.535.tgz --out runs/icon-clip

`--source` is the npm package `@iconify/json` (`npm pack @iconify/json`). Icons are drawn once into the folder
`--out`; every epoch ends with a checkpoint, from which the same command goes on, and with `model.safetensors`
(fp16) and `config.json`, which `load_clip` reads. Its accuracies are in
`bench/kit/clip/icon_clip/README.md`.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from open_clip.tokenizer import SimpleTokenizer
from rich.console import Console
from rich.progress import Progress
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from bench.errors import UserError
from examples.icon_clip.augment import MEAN, STD, augment
from examples.icon_clip.captions import Captions
from examples.icon_clip.corpus import SIZE, Corpus, draw_corpus
from examples.icon_clip.measure import known_concepts

CONTEXT = 16  # tokens: the longest CLIP prompt leaves eight for a name
MODEL_CFG: dict[str, Any] = {
    "embed_dim": 128,
    "vision_cfg": {"image_size": SIZE, "layers": [1, 2, 2, 2], "width": 16},
    "text_cfg": {"context_length": CONTEXT, "vocab_size": 49408, "width": 64, "heads": 4, "layers": 2},
}
PREPROCESS_CFG = {"size": SIZE, "mean": [MEAN] * 3, "std": [STD] * 3, "interpolation": "bicubic"}
LINE_EVERY = 60.0  # seconds between two lines in a log

console = Console(highlight=False, soft_wrap=True)


@dataclass(frozen=True)
class TrainingConfig:
    """All that decides the weights but the data."""

    epochs: int = 18
    batch: int = 1024
    seed: int = 0
    lr: float = 2e-3
    weight_decay: float = 0.1
    warm_up: float = 0.05  # of all steps
    limit: int = 0  # train on so many icons only; 0: on all


def train(corpus: Corpus, config: TrainingConfig, out: Path) -> None:
    """Train contrastively: an icon against every caption of its batch and back, equal captions counted once."""
    torch.manual_seed(config.seed)
    model = CLIP(**MODEL_CFG)
    model.visual = model.visual.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(_parameter_groups(model, config), lr=config.lr, betas=(0.9, 0.98), fused=True)
    captions = Captions(corpus.captions, CONTEXT)
    rows = np.flatnonzero(~corpus.unseen & (corpus.caption >= 0))
    steps = len(rows) // config.batch
    if steps == 0:
        raise UserError(f"{len(rows)} icons do not fill a batch of {config.batch}; use smaller batches or more icons")
    for epoch in range(_resume(model, optimizer, out, config), config.epochs):
        # All randomness of an epoch comes from (seed, epoch): going on from a checkpoint changes nothing.
        rng = np.random.default_rng([config.seed, epoch])
        generator = torch.Generator().manual_seed(config.seed * 1000 + epoch)
        order = rng.permutation(rows)
        started, losses = time.perf_counter(), []
        model.train()
        for step in _counted(steps, f"epoch {epoch + 1} of {config.epochs}"):
            for group in optimizer.param_groups:
                group["lr"] = config.lr * _schedule((epoch * steps + step) / (config.epochs * steps), config)
            batch = order[step * config.batch : (step + 1) * config.batch]
            names, target = np.unique(corpus.caption[batch], return_inverse=True)
            images = augment(corpus.pixels[torch.from_numpy(batch)], generator)
            # bfloat16 is a fifth faster than float32 where the processor has avx512_bf16, and no worse.
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
        rate = steps * config.batch / (time.perf_counter() - started)
        save_checkpoint(model, optimizer, epoch + 1, config, out)
        export(model, out)
        accuracy, count = known_concepts(model.eval(), SimpleTokenizer(context_length=CONTEXT), corpus)
        console.print(
            f"epoch {epoch + 1} of {config.epochs}: loss {float(torch.stack(losses).mean()):.3f}, {rate:.0f} images/s, "
            f"known concepts in unseen sets {accuracy:.3f} of {count}"
        )


def contrastive_loss(seen: Tensor, read: Tensor, target: Tensor, logit_scale: Tensor) -> Tensor:
    """Average image-to-text and text-to-image cross-entropy of seen (B, D), read (U, D), target (B,) in [0, U)."""
    logits = logit_scale.exp() * F.normalize(seen.float(), dim=1) @ F.normalize(read.float(), dim=1).T
    to_text = F.cross_entropy(logits, target)
    # A caption can have several icons in the batch: each is right, so it is the mean over them.
    own = F.log_softmax(logits, dim=0).gather(1, target[:, None])[:, 0]
    icons = torch.bincount(target, minlength=len(read))
    to_image = -(own / icons[target]).sum() / len(read)
    return (to_text + to_image) / 2


def _schedule(progress: float, config: TrainingConfig) -> float:
    if progress < config.warm_up:
        return progress / config.warm_up
    return 0.5 * (1 + math.cos(math.pi * (progress - config.warm_up) / (1 - config.warm_up)))


def _parameter_groups(model: CLIP, config: TrainingConfig) -> list[dict[str, Any]]:
    # The token table is left out of weight decay too: decay would erase the words that are seldom drawn.
    free = {name for name, value in model.named_parameters() if value.ndim < 2 or "embedding" in name}
    return [
        {
            "params": [value for name, value in model.named_parameters() if (name in free) == is_free],
            "weight_decay": 0.0 if is_free else config.weight_decay,
        }
        for is_free in (True, False)
    ]


def _counted(steps: int, what: str) -> Iterator[int]:
    """Count to `steps` with a progress bar on a terminal, else with a line per minute."""
    with _bar(what, steps) as advance:
        said = time.monotonic()
        for step in range(steps):
            yield step
            advance()
            if not console.is_terminal and time.monotonic() - said > LINE_EVERY:
                said = time.monotonic()
                console.print(f"{what}: step {step + 1} of {steps}")


@contextmanager
def _bar(what: str, steps: int) -> Iterator[Any]:
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, total=steps)
        yield lambda: progress.advance(task)


def save_checkpoint(
    model: CLIP, optimizer: torch.optim.Optimizer, epoch: int, config: TrainingConfig, out: Path
) -> None:
    """Write model, optimizer and epoch into one file, atomically."""
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    for number, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{number}.{name}": value for name, value in state.items()}
    temporary = out / "checkpoint.tmp"
    save_file(
        {name: value.contiguous() for name, value in tensors.items()},
        temporary,
        metadata={"epoch": str(epoch), "config": json.dumps(asdict(config))},
    )
    temporary.replace(out / "checkpoint.safetensors")


def _resume(model: CLIP, optimizer: torch.optim.Optimizer, out: Path, config: TrainingConfig) -> int:
    """Return the number of epochs done with the same config; a checkpoint of another config is ignored."""
    path = out / "checkpoint.safetensors"
    if not path.exists():
        return 0
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    if json.loads(metadata["config"]) != asdict(config):
        console.print(f"{path} is of another config; starting over")
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
    """Write the fp16 weights and the configuration as the package holds them."""
    weights = {name: value.half().contiguous() for name, value in model.state_dict().items()}
    temporary = out / "model.tmp"
    save_file(weights, temporary, metadata={"format": "pt"})
    temporary.chmod(0o644)  # safetensors writes for its owner only
    temporary.replace(out / "model.safetensors")
    config = {"model_cfg": MODEL_CFG, "preprocess_cfg": PREPROCESS_CFG}
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--source", type=Path, required=True, help="@iconify/json, as .tgz or unpacked folder")
    parser.add_argument("--out", type=Path, required=True)
    for name, default in asdict(TrainingConfig()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    arguments = vars(parser.parse_args())
    source, out, threads = (arguments.pop(name) for name in ("source", "out", "threads"))
    torch.set_num_threads(threads)
    out.mkdir(parents=True, exist_ok=True)
    config = TrainingConfig(**arguments)
    try:
        train(draw_corpus(source, out, config.limit, threads, console.print), config, out)
    except UserError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
