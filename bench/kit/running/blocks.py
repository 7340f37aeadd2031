"""The blocks of a stage: saved in its work folder, gone on with after a kill, and shared by processes."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from typing import Any, final

from torch import Tensor

from bench import stopping
from bench.kit import distributed
from bench.kit.checkpoint import Checkpoint, flush
from bench.kit.validation import InvalidResult

Claim = Callable[[Path], AbstractContextManager[bool]]  # locks a file, unless another process has; yields whether

_LOOK_EVERY = 10.0  # seconds between two looks at what other processes have finished
_PAUSE = 1.0  # seconds before another try at blocks that others have claimed


def unclaimed(path: Path) -> AbstractContextManager[bool]:
    """Claim a block for a process that is alone in its folder."""
    return nullcontext(True)


class Helped(Exception):
    """There is nothing more to do for a process that helps another with its stage."""


@final
class Blocks:
    """The blocks of one stage: which are this process's, and which is in work.

    Independent blocks are claimed one by one, so that processes which know nothing of each other can share a work
    folder: none makes what another makes or has made, and what a dead one has begun is gone on with.
    """

    def __init__(self, work: Path, items: Sequence[Any], independent: bool, claim: Claim, helps: float):
        self.work, self.independent, self.claim, self.helps = work, independent, claim, helps
        # with the items, as a work folder outlives settings that affect speed alone
        keys = [hashlib.blake2b(repr(item).encode(), digest_size=4).hexdigest() for item in items]
        self.names = [f"block-{index:06d}-{key}" for index, key in enumerate(keys)]
        self.mine = range(len(items))[distributed.share(len(items))] if independent else range(len(items))
        self.left: dict[int, None] = {}  # of mine, in the order in which to do them
        self.current: int | None = None
        self.told = False  # did the block in work say how far it is?
        self.state: Mapping[str, Tensor] = {}
        self.checkpoint = Checkpoint(work, shared=True)
        self._claimed, self._looked = ExitStack(), 0.0

    def todo(self) -> Iterator[int]:
        """Yield the items to do; where blocks build on one another, those from the first missing one on.

        Raises:
            Helped: a helper can't share them.
        """
        if self.helps and not self.independent:
            raise Helped
        start = int(self.helps * len(self.mine))
        self.left = dict.fromkeys([*self.mine[start:], *self.mine[:start]])
        self._look()
        if self.independent:
            yield from self._unclaimed()
            return
        first = distributed.broadcast_object(next(iter(self.left), len(self.names)))
        self.left = dict.fromkeys(range(first, len(self.names)))
        if first:
            self.state = distributed.broadcast_object(self.read(first - 1)[1] if distributed.is_main() else {})
        yield from [*self.left]

    def _unclaimed(self) -> Iterator[int]:
        """Yield blocks that no other process has claimed, until all are finished; a helper doesn't wait for that."""
        while self.left:
            for index in [*self.left]:
                if self._claim(index):
                    yield index
                if time.monotonic() - self._looked >= _LOOK_EVERY:
                    self._look()
            if self.helps:
                return
            self._look()
            if self.left:
                if stopping.asked():
                    raise stopping.Stopped
                time.sleep(_PAUSE)

    def _look(self) -> None:
        """Learn what is finished.

        Raises:
            Helped: others have cut the work into other blocks, because their device has more memory, say.
        """
        flush()
        finished, self._looked = {path.stem for path in self.work.glob("block-*.ckpt")}, time.monotonic()
        if self.helps and not finished <= {*self.names}:
            raise Helped
        self.left = {index: None for index in self.left if self.names[index] not in finished}

    def _claim(self, index: int) -> bool:
        ours = self._claimed.enter_context(self.claim(self._lock(index)))
        if ours and not self._file(index).exists():
            return True
        self.release()
        return False

    def _lock(self, index: int) -> Path:
        return self.work / f"work-{self.names[index]}.lock"

    def release(self) -> None:
        """Give up the claim on the block in work."""
        self._claimed.close()

    def begin(self, index: int) -> None:
        self.current = index
        name, cost = f"work-{self.names[index]}", self.checkpoint.cost
        self.checkpoint = Checkpoint(self.work, name, shared=not self.independent, cost=cost)
        self.told = self.checkpoint.exists()  # what was begun before has said how far it is

    def save(self, tensors: dict[str, Tensor], state: Mapping[str, Tensor]) -> None:
        """Keep the block in work."""
        assert self.current is not None
        index, self.current, self.state = self.current, None, state
        if self.independent or distributed.is_main():
            self._file(index).save({**tensors, **{f"state.{name}": value for name, value in state.items()}})
        self.checkpoint.discard()
        self._lock(index).unlink(missing_ok=True)  # before it is free: who comes then finds the block
        self.release()
        self.left.pop(index, None)

    @property
    def done(self) -> int:
        """The number of mine that are finished."""
        return len(self.mine) - len(self.left)

    def read(self, index: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Read a finished block: its tensors, and the state that the next one goes on from."""
        found = self._file(index).load()
        if found is None:
            self._file(index).discard()  # so that it is made again
            raise InvalidResult(f"block {index + 1} of {len(self.names)} is missing or was damaged")
        state = {name: found[0].pop(name) for name in [*found[0]] if name.startswith("state.")}
        return found[0], {name.removeprefix("state."): tensor for name, tensor in state.items()}

    def _file(self, index: int) -> Checkpoint:
        return Checkpoint(self.work, self.names[index])
