"""What a node says of itself: the job that ``bench doctor`` sends to it, and the words the two exchange.

They talk through files in a folder of the store, so that the store itself is what is tried: the node writes
``hello.json``, the doctor sees it and writes ``reply.json``, the node sees that and writes ``facts.json``.
"""

from __future__ import annotations

import json
import platform
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from bench.execution.environment import code
from bench.slurm import queue
from bench.store.artifacts import write_atomically
from bench.store.locks import lease

HELLO, REPLY, FACTS = "hello.json", "reply.json", "facts.json"
UNSEEN = 60.0  # seconds for which NFS may not show a new file (acdirmax, nfs(5))
_TORCH_SECONDS = 300.0  # an import over a network file system takes minutes at worst
_LOOK = """
import json, torch
found = torch.cuda.device_count() if torch.cuda.is_available() else 0
name = torch.cuda.get_device_name(0) if found else ""
print(json.dumps({"version": torch.__version__, "accelerators": found, "name": name}))
"""


class Torch(BaseModel):
    """What torch says of a machine."""

    model_config = ConfigDict(frozen=True)

    version: str = ""
    accelerators: int = 0
    name: str = ""  # of the first
    error: str = ""  # why it can't be imported


class Facts(BaseModel):
    """What a node found out."""

    model_config = ConfigDict(frozen=True)

    host: str
    python: str
    code: dict[str, str]
    torch: Torch
    heard: float | None  # Unix seconds when it saw the reply; None: it never did
    held: bool  # is the lock, which the doctor holds, held for this node too?
    scontrol: bool  # does the controller answer from there?


class Probe:
    """The job, as submitit carries it.

    Args:
        folder: where the files are exchanged.
        root: the store, whose lease ``lock`` the doctor holds.
    """

    def __init__(self, folder: str, root: str, lock: str):
        self.folder, self.root, self.lock = folder, root, lock

    def __call__(self) -> None:
        folder = Path(self.folder)
        write_atomically(folder / HELLO, json.dumps({"time": time.time()}))
        heard = time.time() if await_file(folder / REPLY, UNSEEN) is not None else None
        facts = Facts(
            host=socket.gethostname(),
            python=platform.python_version(),
            code=code(),
            torch=look_at_torch(),
            heard=heard,
            held=is_held(Path(self.root), self.lock),
            scontrol=queue.ask("scontrol", "ping") is not None,
        )
        write_atomically(folder / FACTS, facts.model_dump_json())


def look_at_torch() -> Torch:
    """Import torch in a process of its own, which may crash, and count the accelerators."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", _LOOK], capture_output=True, text=True, timeout=_TORCH_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return Torch(error=f"importing it took more than {_TORCH_SECONDS:.0f} s")
    try:
        return Torch.model_validate_json(done.stdout.strip().splitlines()[-1])
    except (IndexError, ValidationError):
        said = done.stderr.strip().splitlines()
        return Torch(error=said[-1] if said else f"exit code {done.returncode}")


def is_held(root: Path, lock: str) -> bool:
    """Does somebody else hold a lease of the store?"""
    with lease(root, lock) as ours:
        return not ours


def read_file(path: Path) -> dict[str, Any] | None:
    """A JSON file that another machine wrote; None while it isn't to be seen."""
    try:
        list(path.parent.iterdir())  # makes NFS look again
        found: dict[str, Any] = json.loads(path.read_bytes())
        return found
    except (OSError, ValueError):
        return None


def await_file(path: Path, seconds: float) -> dict[str, Any] | None:
    """The same, waiting for it; None when it doesn't come."""
    deadline = time.monotonic() + seconds
    while (found := read_file(path)) is None and time.monotonic() < deadline:
        time.sleep(0.2)
    return found
