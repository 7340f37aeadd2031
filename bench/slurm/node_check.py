"""The job that ``bench doctor`` runs on a node, and the files that the two exchange.

They exchange files in a folder of the store, so that the store itself is tested: the node writes ``hello.json``, the
doctor sees it and writes ``reply.json``, the node sees that and writes ``facts.json``.
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
from bench.files import write_atomically
from bench.slurm import queue
from bench.store.locks import lease

HELLO, REPLY, FACTS = "hello.json", "reply.json", "facts.json"
UNSEEN = 60.0  # seconds for which NFS may not show a new file (acdirmax, nfs(5))
_TORCH_SECONDS = 300.0  # an import over a network file system takes minutes at worst
_IMPORT_TORCH = """
import json, torch
found = torch.cuda.device_count() if torch.cuda.is_available() else 0
name = torch.cuda.get_device_name(0) if found else ""
print(json.dumps({"version": torch.__version__, "accelerators": found, "name": name}))
"""


class Torch(BaseModel):
    """The torch of a machine, and the accelerators that it finds."""

    model_config = ConfigDict(frozen=True)

    version: str = ""
    accelerators: int = 0
    name: str = ""  # of the first
    error: str = ""  # of its import

    def __str__(self) -> str:
        found = f"{self.accelerators} × {self.name}" if self.accelerators else "no accelerator"
        return f"{self.version}, {found}"


class Facts(BaseModel):
    """The findings of a node."""

    model_config = ConfigDict(frozen=True)

    host: str
    python: str
    code: dict[str, str]
    torch: Torch
    replied: float | None  # Unix seconds when the reply became visible; None: it never did
    held: bool  # the doctor's lock is held for this node too
    scontrol: bool  # the controller answers from there


class NodeCheck:
    """Collect the facts of a node; submitit pickles the paths.

    Args:
        folder: where the files are exchanged.
        root: the store, whose lease ``lock`` the doctor holds.
    """

    def __init__(self, folder: str, root: str, lock: str):
        self.folder, self.root, self.lock = folder, root, lock

    def __call__(self) -> None:
        folder = Path(self.folder)
        write_atomically(folder / HELLO, json.dumps({"time": time.time()}))
        deadline = time.monotonic() + UNSEEN
        while (reply := read_file(folder / REPLY)) is None and time.monotonic() < deadline:
            time.sleep(0.2)
        replied = time.time() if reply is not None else None
        facts = Facts(
            host=socket.gethostname(),
            python=platform.python_version(),
            code=code(),
            torch=check_torch(),
            replied=replied,
            held=is_held(Path(self.root), self.lock),
            scontrol=queue.run_command("scontrol", "ping") is not None,
        )
        write_atomically(folder / FACTS, facts.model_dump_json())


def check_torch() -> Torch:
    """Import torch in a process of its own, which may crash, and count the accelerators."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", _IMPORT_TORCH], capture_output=True, text=True, timeout=_TORCH_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return Torch(error=f"importing it took more than {_TORCH_SECONDS:.0f} s")
    try:
        return Torch.model_validate_json(done.stdout.strip().splitlines()[-1])
    except (IndexError, ValidationError):
        lines = done.stderr.strip().splitlines()
        return Torch(error=lines[-1] if lines else f"exit code {done.returncode}")


def is_held(root: Path, lock: str) -> bool:
    """Check that another process holds a lease of the store."""
    with lease(root, lock) as ours:
        return not ours


def read_file(path: Path) -> dict[str, Any] | None:
    """Read a JSON file that another machine wrote; None while it isn't visible."""
    try:
        list(path.parent.iterdir())  # makes NFS look again
        found: dict[str, Any] = json.loads(path.read_bytes())
        return found
    except (OSError, ValueError):
        return None
