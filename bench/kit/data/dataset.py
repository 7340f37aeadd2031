"""Data sets of image files, and the splits of any: in memory (``Resident``), or read from files (``Files``)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor

from bench.api import AugmentationConfig, AugmentedBatch, Dataset, DatasetInfo, Split
from bench.kit.data import reading
from bench.kit.data.contents import CheckedPaths, Contents
from bench.kit.data.decoding import MOST_CHECKED, check_all, check_varied, common_side, decode, decode_all
from bench.kit.data.packing import Squares, kept_views, packed_splits
from bench.kit.data.reading import AT_ONCE, Cut, Sources, default_workers, read_batches, read_pieces
from bench.kit.views import resized_crop, stream_of
from bench.kit.views.geometry import centre

Device = torch.device | str
Replay = Sequence[tuple[int, int]]
Rows = Callable[[int], slice]
MOST_RESIDENT = 4 * 2**30  # bytes of uint8; Tiny-ImageNet has 1.4e9


@final
class Resident(Split):
    """A split in memory: ``pixels`` uint8 (N, 3, H, W); a copy is kept on each device of use."""

    def __init__(
        self,
        pixels: Tensor,
        labels: Tensor,
        extras: Mapping[str, Tensor] | None = None,
        channels: Tensor | None = None,
    ):
        """Keep a split in memory; ``channels`` uint8 (N, P, H, W) are cut, flipped and mixed with the pixels."""
        super().__init__(labels)
        self.pixels, self.channels, self.extras = pixels, channels, extras or {}
        self._copies: dict[torch.device, tuple[Tensor, Tensor]] = {}
        self._held: list[tuple[Tensor, int]] = []  # with the number of writes into each
        self._hold(pixels, labels)

    def on(self, device: Device) -> tuple[Tensor, Tensor]:
        """Return pixels with their extra channels, uint8 (N, 3 + P, H, W), and labels on ``device``."""
        device = torch.device(device)
        if device not in self._copies:
            pixels = self.pixels.to(device)
            if self.channels is not None:
                pixels = torch.cat([pixels, self.channels.to(device)], 1)
            self._copies[device] = pixels, self.labels.to(device)
            self._hold(*self._copies[device])
        return self._copies[device]

    @property
    def written(self) -> bool:
        """Tell whether somebody wrote into images or labels that were handed out."""
        return any(tensor._version != writes for tensor, writes in self._held)

    def _hold(self, *tensors: Tensor) -> None:
        self._held += [(tensor, tensor._version) for tensor in tensors if not tensor.is_inference()]

    def views(
        self,
        config: AugmentationConfig,
        epoch: int,
        batch_size: int,
        device: Device,
        replay: Replay | None = None,
        first: int = 0,
        last: int | None = None,
        rows: Rows | None = None,
    ) -> Iterator[AugmentedBatch]:
        pixels, labels = self.on(device)
        stream = stream_of(config, len(self))
        if replay is not None:
            yield from (stream.again(pixels, labels, *place, batch_size) for place in replay[first:last])
            return
        for batch, indices in islice(stream.batches(epoch, batch_size, device), first, last):
            yield stream.make(pixels, labels, stream.part(indices, rows), epoch, batch)

    def centered(
        self, size: int, device: Device, batch_size: int = 256, indices: Tensor | None = None, whole: bool = False
    ) -> Iterator[tuple[Tensor, Tensor]]:
        pixels, labels = self.on(device)
        for chosen in _batches(len(self), indices, batch_size):
            chosen = chosen.to(device)
            yield centre(pixels[chosen, :3], size, whole), labels[chosen]

    def crops(
        self, config: AugmentationConfig, indices: Tensor, count: int, device: Device, then: Tensor | None = None
    ) -> Tensor:
        pixels, _ = self.on(device)
        images = pixels[indices.to(device), :3].float().div_(255)
        heights, widths = (torch.full_like(indices, side) for side in pixels.shape[2:])
        stream = stream_of(config, len(self))
        crops = [
            resized_crop(images, stream.boxes(k, indices, heights, widths).to(device), config.size, config.antialias)
            for k in range(count)
        ]
        return torch.stack(crops)

    def image(self, index: int) -> Tensor:
        return self.pixels[index]

    def tensors(self) -> Iterator[Tensor]:
        yield from (self.pixels, *(self.extras[name] for name in sorted(self.extras)))
        yield from () if self.channels is None else (self.channels,)


@final
class Files(Split):
    """A split that is read from files, again in every epoch."""

    def __init__(self, files: Sources, labels: Tensor, workers: int | None = None, shelf: Path | None = None):
        """Keep the files of a split, read by :func:`default_workers`; a store keeps test views next to ``shelf``."""
        super().__init__(labels)
        self.paths, self.shelf = files, shelf
        self.workers = default_workers() if workers is None else workers
        self._begun: tuple[Any, Iterator[Tensor]] = None, iter(())  # crops that are read ahead: which, and they

    def views(
        self,
        config: AugmentationConfig,
        epoch: int,
        batch_size: int,
        device: Device,
        replay: Replay | None = None,
        first: int = 0,
        last: int | None = None,
        rows: Rows | None = None,
    ) -> Iterator[AugmentedBatch]:
        if replay is not None:
            raise NotImplementedError("labels are stored for synthetic images, which are kept in memory")
        stream = stream_of(config, len(self))
        batches = islice(stream.batches(epoch, batch_size), first, last)
        groups = [stream.part(indices, rows) for _, indices in batches]
        cut = partial(reading.cut_view, config, len(self), epoch)
        cropped = self._read([some for some in groups if len(some)], cut, device)
        nothing = torch.empty(0, 3, config.size, config.size, dtype=torch.uint8, device=device)
        for batch, indices in enumerate(groups, first):
            pixels = next(cropped) if len(indices) else nothing
            yield stream.finish(pixels, self.labels[indices], indices, epoch, batch)

    def centered(
        self, size: int, device: Device, batch_size: int = 256, indices: Tensor | None = None, whole: bool = False
    ) -> Iterator[tuple[Tensor, Tensor]]:
        groups = _batches(len(self), indices, batch_size)
        kept = self._kept(size, whole, sum(map(len, groups)))
        if kept is not None:
            made: Iterator[Tensor] = (kept.some(chosen.numpy()).stacked().to(device) for chosen in groups)
        else:
            made = self._read(groups, partial(reading.cut_centre, size, whole), device)
        for chosen, pixels in zip(groups, made, strict=True):
            yield pixels, self.labels[chosen].to(device, non_blocking=True)

    def crops(
        self, config: AugmentationConfig, indices: Tensor, count: int, device: Device, then: Tensor | None = None
    ) -> Tensor:
        wanted, (begun, pieces) = (config, count, indices.tolist()), self._begun
        if begun != wanted:
            pieces = self._begin_crops(config, count, indices)
        self._begun = None, iter(())
        shape = count, len(indices), 3, config.size, config.size
        crops = torch.empty(shape, pin_memory=torch.device(device).type == "cuda")
        for place, piece in enumerate(pieces):
            crops[:, place * AT_ONCE : (place + 1) * AT_ONCE] = piece.transpose(0, 1)
        if then is not None:
            self._begun = (config, count, then.tolist()), self._begin_crops(config, count, then)
        return crops.to(device, non_blocking=True)

    def _begin_crops(self, config: AugmentationConfig, count: int, indices: Tensor) -> Iterator[Tensor]:
        cut = partial(reading.cut_crops, config, len(self), count)
        return read_pieces(self.paths, indices.split(AT_ONCE), cut, self.workers)

    def _kept(self, size: int, whole: bool, wanted: int) -> Squares | None:
        if self.shelf is None:
            return None
        path = self.shelf.with_name(f"{self.shelf.name}-{size}{'-whole' if whole else ''}.u8")
        return kept_views(path, Files(self.paths, self.labels, self.workers), size, whole, wanted)

    def image(self, index: int) -> Tensor:
        found = self.paths[index]
        return found if isinstance(found, Tensor) else decode(found)

    def _read(self, groups: Sequence[Tensor], cut: Cut, device: Device) -> Iterator[Tensor]:
        return read_batches(self.paths, groups, cut, torch.device(device), self.workers)


def _batches(count: int, indices: Tensor | None, batch_size: int) -> tuple[Tensor, ...]:
    return torch.split(torch.arange(count) if indices is None else indices.cpu(), batch_size)


@final
class FileDataset(Dataset):
    """A data set of image files, each split read when it is first used.

    A split whose images are all squares of one size is read into memory where it fits, others per batch.
    """

    contents: Contents
    _packed: Mapping[str, Squares] | None
    _shelf: Path | None

    def __init__(self, info: DatasetInfo, found: Contents, kept: Path | None = None):
        """Take the files that were found, which a store remembers in ``kept``; refuse packed ones that are damaged."""
        contents, packed = packed_splits(found) or (found, None)
        vars(self).update(info=info, names=contents.words, ids=contents.ids, contents=contents, digest=found.digest)
        vars(self).update(_packed=packed, _shelf=kept and kept.with_name(f"{found.digest}-val"))

    @cached_property
    def train(self) -> Split:
        return self._split("train")

    @cached_property
    def test(self) -> Split:
        return self._split("val", self._shelf)

    def _split(self, name: str, shelf: Path | None = None) -> Split:
        """Open a split.

        Raises:
            UserError: a file cannot be decoded or has changed, or the images of a class are all constant.
        """
        part = self.contents.parts[name]
        labels = torch.arange(len(self.ids)).repeat_interleave(torch.from_numpy(part.counts))
        if self._packed is not None:
            squares = self._packed[name]
            return (
                Resident(squares.stacked(), labels)
                if 3 * squares.size**2 * len(squares) <= MOST_RESIDENT
                else Files(squares, labels)
            )
        paths = CheckedPaths(part)
        side = common_side(paths)
        if len(paths) * 3 * side**2 > MOST_RESIDENT:
            side = 0
        if not side and len(paths) < MOST_CHECKED:
            check_all(paths, hashlib.blake2b(part.hashes.tobytes(), digest_size=16).hexdigest())
        ends = part.counts.cumsum().tolist()
        classes = zip(self.ids, map(range, [0, *ends], ends), strict=False)
        check_varied({name: paths.some(places) for name, places in classes})
        return Resident(decode_all(paths, side), labels) if side else Files(paths, labels, shelf=shelf)
