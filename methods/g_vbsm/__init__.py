"""G_VBSM (Shao et al., CVPR 2024): images that match many statistics of many networks, which label them together."""

from __future__ import annotations

from methods.g_vbsm.method import GVBSM

__all__ = ["GVBSM"]
