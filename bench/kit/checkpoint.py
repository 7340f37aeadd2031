"""Checkpoints of unfinished work: one safetensors file, written atomically by a thread, checked when read.

A loop waits for the copy of its state alone, and saves seldom enough to lose at most a hundredth of its time, the
thread's included. What was kept last is on the disk once :func:`flush` returns, or any method of :class:`Checkpoint`
but ``due`` and ``save``.

:class:`bench.api.Checkpoint` shows a loop that goes on to the same bits.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from bench import stopping
from bench.kit import distributed

_DIGEST = 32  # bytes of SHA-256 in front of the file
_EVERY = 30.0  # seconds of work that a death without warning may cost, at least
_SPACING = 100.0  # times the seconds that a save takes

_writer = ThreadPoolExecutor(1, "checkpoint")
_pending: list[Future[None]] = []  # at most one: the last save


def flush() -> None:
    """Wait until the last save of this process is on the disk.

    Raises:
        OSError: it could not be written.
    """
    while _pending:
        _pending.pop().result()


@contextmanager
def temporary_folder(parent: Path | None = None) -> Iterator[Path]:
    """Make a folder for checkpoints, which goes when the last save of this process is on the disk."""
    with tempfile.TemporaryDirectory(dir=parent) as place:
        try:
            yield Path(place)
        finally:
            flush()


class Checkpoint:
    """One checkpoint in a folder; a newer one takes the place of the older.

    Where several processes share the work (``shared``), each keeps its own with :meth:`save`; a training is equal on
    all of them, so that the first keeps it for all.

    Args:
        name: apart from those of other checkpoints in the folder.
        every: the least seconds between two saves, unless a stop is requested.
        cost: seconds that a save takes; known once one was made.
    """

    def __init__(
        self, folder: Path, name: str = "checkpoint", every: float = _EVERY, shared: bool = False, cost: float = 0.0
    ):
        self.folder, self.name, self.every, self.shared, self.cost = folder, name, every, shared, cost
        number = distributed.rank() if shared else 0
        self.path = folder / (f"{name}-{number}.ckpt" if number else f"{name}.ckpt")
        self._saved = time.monotonic()

    def due(self) -> bool:
        """Return whether it is time to save: long enough after the last save, or a stop was requested."""
        return stopping.asked() or time.monotonic() - self._saved >= max(self.every, _SPACING * self.cost)

    def save(self, tensors: Mapping[str, Tensor], /, **facts: Any) -> None:
        """Keep tensors and plain JSON facts.

        Raises:
            bench.stopping.Stopped: they are kept, and a stop was requested. Let it pass: the work is called
                again with the same folder.
        """
        flush()
        begun = time.monotonic()
        plain = {
            key: tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
            for key, tensor in tensors.items()
        }
        self._saved = time.monotonic()
        _pending.append(_writer.submit(self._write, plain, json.dumps(facts), self._saved - begun))
        if stopping.asked():
            flush()
            raise stopping.Stopped

    def _write(self, plain: dict[str, Tensor], facts: str, spent: float) -> None:
        begun = time.monotonic()
        blob = save(plain, metadata={"facts": facts})
        temporary = self.path.with_suffix(".part")
        try:
            with temporary.open("wb") as stream:
                stream.write(hashlib.sha256(blob).digest())
                stream.write(blob)
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(self.path)
        except FileNotFoundError:
            if self.folder.is_dir():  # else its owner ended and removed it
                raise
        self.cost = spent + time.monotonic() - begun

    def exists(self) -> bool:
        """Return whether something was kept."""
        flush()
        return self.path.exists()

    def discard(self) -> None:
        """Remove what was kept."""
        flush()
        self.path.unlink(missing_ok=True)

    def save_training(self, model: nn.Module, optimizer: torch.optim.Optimizer, /, **facts: Any) -> None:
        """Keep all that a training loop changes, torch's global random streams included."""
        if self._writes:
            self.save(training_state(model, optimizer), **facts)
        else:
            self._saved = time.monotonic()

    def restore_training(self, model: nn.Module, optimizer: torch.optim.Optimizer, /) -> dict[str, Any] | None:
        """Put back what :meth:`save_training` kept and return its facts; None where there is nothing."""
        found = self.load() if self._writes else None
        if self.shared:
            found = distributed.broadcast_object(found)
        if found is not None:
            restore_training(model, optimizer, found[0])
        return found and found[1]

    @property
    def _writes(self) -> bool:
        """True in the process that keeps what is equal on all of them."""
        return not self.shared or distributed.is_main()

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Return what was kept last; None where there is nothing, or nothing whole."""
        flush()
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return None
        blob = content[_DIGEST:]
        if hashlib.sha256(blob).digest() != content[:_DIGEST]:
            return None
        try:
            header = json.loads(blob[8 : 8 + int.from_bytes(blob[:8], "little")])
            return load(blob), json.loads(header["__metadata__"]["facts"])
        except (SafetensorError, KeyError, ValueError):
            return None


def training_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Collect all that a training loop changes, as flat tensors.

    These are trainable parameters, buffers, optimizer moments, and the states of torch's global random streams
    (dropout and stochastic depth draw from them).
    """
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    buffers = {name for name, _ in model.named_buffers()}
    tensors = {f"model.{name}": t for name, t in model.state_dict().items() if name in trained | buffers}
    for index, moments in optimizer.state_dict()["state"].items():
        for key, value in moments.items():
            tensors[f"optimizer.{index}.{key}"] = torch.as_tensor(value)
    return tensors | {f"random.{kind}": stream.get_rng_state() for kind, stream in _streams(model).items()}


def restore_training(model: nn.Module, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put back what :func:`training_state` took."""
    weights = {name.removeprefix("model."): t for name, t in tensors.items() if name.startswith("model.")}
    model.load_state_dict(weights, strict=False)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".", 2)
            state.setdefault(int(index), {})[key] = _laid_out_as(parameters[int(index)], tensor)
    if state:
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    for kind, stream in _streams(model).items():
        if f"random.{kind}" in tensors:  # not from another kind of device
            stream.set_rng_state(tensors[f"random.{kind}"])


def _streams(model: nn.Module) -> dict[str, Any]:
    """Return the keepers of the random streams of the host and of the device a model is on."""
    device = next(model.parameters()).device
    return {"cpu": torch} if device.type == "cpu" else {"cpu": torch, device.type: torch.get_device_module(device)}


def _laid_out_as(parameter: Tensor, moment: Tensor) -> Tensor:
    # Fused optimizers walk parameter, gradient and moments by address: a moment that comes back from the disk in
    # another memory format than its parameter's would be applied to the wrong weights.
    if moment.shape != parameter.shape:
        return moment
    return torch.empty_like(parameter, dtype=moment.dtype).copy_(moment)
