"""What a process does with the memory that its tensors leave."""

from __future__ import annotations

import platform
import resource
import subprocess
import sys

import pytest

from tests.conftest import environment

FAULTS = """
import resource, sys
from bench.execution.environment import keep_memory
if sys.argv[1] == "kept":
    keep_memory()
for turn in range(5):
    b"1" * 2**26
    if not turn:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    words = [sys.executable, "-c", FAULTS, how]
    return int(subprocess.run(words, env=environment(), capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_pages_that_were_freed_are_not_made_anew() -> None:
    pages = 4 * 2**26 // resource.getpagesize()
    assert faults("freed") >= pages, "what the setting is for"
    assert faults("kept") < pages / 100
