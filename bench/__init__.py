"""distill-bench: dataset distillation weighed by what it really stores."""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Load the Python API on first use, so that importing ``bench`` stays light."""
    if name == "load_results":
        from bench.report.results import load_results

        return load_results
    raise AttributeError(f"module 'bench' has no attribute {name!r}")
