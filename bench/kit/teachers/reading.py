"""Checkpoints that others trained, as training scripts save them, read without running pickled code."""

from __future__ import annotations

import argparse
import pathlib
import re
import stat
import types
import warnings
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from bench.errors import UserError

State = dict[str, Tensor]
_MAX_BYTES = 16 * 2**30
_DEPTH = 3  # of dictionaries in dictionaries
# where several state dicts of a file fit, the first of these places is meant; averages (EMA) are chosen by name alone
USUAL = ("", "model", "state_dict", "model_state_dict", "net", "network", "module", "_orig_mod", "weights", "params")
# what the usual scripts add to a checkpoint; all of it is plain values (torchvision references, timm, Lightning)
_NUMPY = {"scalar": np.float64(0).__reduce__()[0], "_reconstruct": np.zeros(0).__reduce__()[0]}
_PLAIN: list[Any] = [
    argparse.Namespace, types.SimpleNamespace, np.dtype, np.ndarray, deque, defaultdict, list, dict, set,
    *(type(np.dtype(kind)) for kind in "?bBhHiIlLqQefdgSU"),
    *((found, f"numpy.{core}.multiarray.{name}") for name, found in _NUMPY.items() for core in ("core", "_core")),
    *((pathlib.PurePosixPath, f"pathlib.{path}") for path in ("PosixPath", "WindowsPath", "_local.PosixPath")),
]  # fmt: skip


def states_in(path: Path) -> tuple[dict[str, State], str]:
    """Read every state dict (names → tensors) of a file by its place, ``""``, ``"model"``, ``"checkpoint.ema"``.

    Also returned are the file's keys, for messages.

    The file is safetensors, or torch.save'd and loaded with ``weights_only=True``.

    Raises:
        UserError: it is no regular file, can't be read, or holds none.
    """
    try:
        facts = path.stat()
        if not stat.S_ISREG(facts.st_mode):
            raise UserError(f"the teacher file {path} is not a regular file; expected a checkpoint (state dict)")
        if facts.st_size > _MAX_BYTES:
            raise UserError(f"the teacher file {path} has {facts.st_size / 2**30:.0f} GiB, more than a checkpoint may")
        if path.suffix == ".safetensors":
            found: Any = load_file(path)
        else:
            with torch.serialization.safe_globals(_PLAIN), warnings.catch_warnings(action="ignore"):
                found = torch.load(path, map_location="cpu", weights_only=True)
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"the teacher file {path} can't be read: {error.strerror or error}") from None
    except Exception as error:  # torch and safetensors have no common error for what is no checkpoint
        alien = r"(?:GLOBAL|class|type) ([\w.]+)\S* (?:was not an allowed|whose module)|but got <class '([\w.]+)'>"
        if found_class := re.search(alien, str(error)):
            raise UserError(
                f"the teacher file {path} holds {found_class[1] or found_class[2]} beside plain values, and pickled "
                "code is never run; save the model's state_dict() with torch.save or safetensors"
            ) from None
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        if "WeightsUnpickler" in str(error):
            reason = "no torch.save wrote it, and *.safetensors is not its name"
        raise UserError(f"the teacher file {path} can't be read as a checkpoint: {short(reason)}") from None
    states = dict(_states(found, ""))
    held = f"its keys are {listed(found)}" if isinstance(found, Mapping) else f"it holds a {type(found).__name__}"
    if states:
        return states, held
    raise UserError(f"the teacher file {path} holds no state dict (names → tensors): {held}")


def _states(found: Any, place: str, depth: int = 0) -> Iterator[tuple[str, State]]:
    if not isinstance(found, Mapping) or not all(isinstance(key, str) for key in found):
        return
    tensors = {key: value for key, value in found.items() if isinstance(value, Tensor)}
    if tensors:
        yield place, tensors
    if depth < _DEPTH:
        for key, value in found.items():
            yield from _states(value, f"{place}.{key}".lstrip("."), depth + 1)


def read_state(path: Path) -> State:
    """Read the one state dict of a file, or that under a usual key; ``module.`` in front of every name is taken off.

    Raises:
        UserError: as :func:`states_in` does, or there are several.
    """
    states, _ = states_in(path)
    place = next((place for place in USUAL if place in states), None)
    if place is None and len(states) > 1:
        raise UserError(f"the teacher file {path} holds several state dicts: {listed(states)}; save one of them alone")
    state = states[next(iter(states)) if place is None else place]
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}


def listed(names: Any) -> str:
    """List a few names, without the control characters that a file may hold."""
    shown = [short(str(name)) or "the file itself" for name in list(names)[:8]]
    return ", ".join(shown) + (", …" if len(names) > 8 else "")


def short(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text[:100])
