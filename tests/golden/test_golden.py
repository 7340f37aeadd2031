"""What is computed stays what it was: facts that do not depend on the processor against the committed ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.golden.facts import PARTS
from tests.golden.portable import bits, vendor

FROZEN: dict[str, dict[str, Any]] = json.loads(Path(__file__).with_name("facts.json").read_text(encoding="utf-8"))


def assert_same(found: Any, frozen: Any, place: str) -> None:
    """Compare floats to 1e-4 relative, all else exactly."""
    if isinstance(frozen, float):
        assert found == pytest.approx(frozen, rel=1e-4, abs=1e-7), place
    elif isinstance(frozen, dict):
        assert list(found) == list(frozen), place
        for key, value in frozen.items():
            assert_same(found[key], value, f"{place}, {key}")
    elif isinstance(frozen, list):
        assert len(found) == len(frozen), place
        for index, (mine, value) in enumerate(zip(found, frozen, strict=True)):
            assert_same(mine, value, f"{place}, {index}")
    else:
        assert found == frozen, place


@pytest.mark.parametrize("part", PARTS)
def test_facts_are_the_frozen_ones(part: str) -> None:
    assert_same(json.loads(json.dumps(PARTS[part]())), FROZEN[part], part)


def test_a_planted_change_is_found() -> None:
    losses = {name: list(values) for name, values in FROZEN["losses"].items()}
    losses["sre2l"][0] *= 1.001
    with pytest.raises(AssertionError, match="losses, sre2l, 0"):
        assert_same(losses, FROZEN["losses"], "losses")


def test_every_part_is_frozen() -> None:
    assert list(FROZEN) == list(PARTS)


def test_portable_kernels_give_the_committed_bits(tmp_path: Path) -> None:
    frozen = json.loads(Path(__file__).with_name("portable.json").read_text(encoding="utf-8"))
    known = frozen.get(torch.__version__)
    if not known or not vendor() or "avx2" not in Path("/proc/cpuinfo").read_text(encoding="utf-8"):
        pytest.skip("bits of another version of torch, or no AVX2")
    made = bits(tmp_path)[torch.__version__]
    if made.pop("vendor") != known.pop("vendor") and made != known:
        pytest.xfail(f"on {vendor()} the bits are others than those recorded: docs/guarantees.md promises too much")
    assert made == known
