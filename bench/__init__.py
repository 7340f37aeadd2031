"""distill-bench: dataset distillation weighed by what it really stores."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"
_API = {"load_results": "bench.report.results"}  # name → module


def __getattr__(name: str) -> Any:
    """Load the Python API on first use, so that importing ``bench`` stays light."""
    if name in _API:
        return getattr(import_module(_API[name]), name)
    raise AttributeError(f"module 'bench' has no attribute {name!r}")
