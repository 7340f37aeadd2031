"""Files with a digest of themselves: what is no longer what was written is named, and nothing blocks or blows up."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bench.store import sealing
from bench.store.record import Record
from bench.store.sealing import read_sealed, sealed, unsealed


def test_what_was_sealed_comes_back() -> None:
    assert unsealed(sealed('{"a": 1}\n').encode()) == b'{"a": 1}\n'


@pytest.mark.parametrize("change", ["cut", "edited", "digest gone", "other digest", "empty"])
def test_a_change_is_noticed(tmp_path: Path, change: str) -> None:
    text = sealed('{"top1": 0.5, "state": "done"}')
    changed = {
        "cut": text[:-9],
        "edited": text.replace("0.5", "0.9"),
        "digest gone": '{"top1": 0.5, "state": "done"}',
        "other digest": sealed('{"top1": 0.9}')[:46] + text[46:],
        "empty": "",
    }[change]
    (tmp_path / "record.json").write_text(changed)
    with pytest.raises(ValueError, match="digest"):
        read_sealed(tmp_path / "record.json")


def test_only_regular_files_of_a_sane_size_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero"):
        with pytest.raises(ValueError, match="not a regular file"):
            read_sealed(path)
    (tmp_path / "large").write_text(sealed("{}" + " " * 100))
    monkeypatch.setattr(sealing, "MOST_BYTES", 100)
    with pytest.raises(ValueError, match="at most 100"):
        read_sealed(tmp_path / "large")


@pytest.mark.parametrize("text", ['{"a":' * 100_000, "[" * 100_000, '{"run": {"seconds": -1}}', "[]", "null"])
def test_what_is_no_record_is_said_in_one_line(text: str) -> None:
    with pytest.raises(ValueError):
        Record.parse(text)
