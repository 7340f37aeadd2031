"""HeLlO (Yu et al., ICCV 2025): RDED's images under the labels of a low-rank adapted CLIP."""

from __future__ import annotations

from methods.hello.method import HeLlO

__all__ = ["HeLlO"]
