"""Training images as a data set of their own, to choose settings without a look at test images (docs/sweeps.md)."""

from typing import ClassVar

from bench.api import DatasetInfo
from bench.api.catalogue import DatasetPlugin, ImageFiles, Listing, plugin
from bench.errors import UserError

HELD_OUT = 5  # the last fifth of each class in the order of its files
MOST = 500  # images per class of a set that comes as arrays


class HeldOut(DatasetPlugin):
    """Train on the first four fifths of NAME's training images, test on the rest; NAME's test images are not used."""

    argument: ClassVar[str] = "NAME"
    title: ClassVar[str] = "four fifths of NAME's training images, tested on the rest"

    def __init__(self, name):
        super().__init__(name)
        self.whole = plugin(name.removeprefix("held-out")[1:])

    def info(self):
        info = self.whole.info()
        train = min(info.train_images, MOST * info.classes)
        facts = {"name": f"held-out-{info.name}", "title": f"{info.title}, its training images alone"}
        smallest = min(info.smallest_class, MOST)
        counts = {"train_images": train - train // HELD_OUT, "test_images": train // HELD_OUT}
        if info.fingerprint:  # a user's folder: known by its files alone
            from bench.kit.data.contents import contents_of

            part = self.files(self.root(None))
            facts["fingerprint"] = contents_of(part).digest
            counts = {
                f"{split}_images": sum(map(len, listing.files.values()))
                for split, listing in (("train", part.train), ("test", part.val))
            }
        return DatasetInfo(**{**dict(info), **facts, **counts, "smallest_class": smallest - smallest // HELD_OUT})

    def root(self, data_root):
        return self.whole.root(data_root)

    def locate(self, root):
        return self.whole.locate(root)

    def check_counts(self, info, root, classes, train, test):
        pass  # of the whole set, which is checked when it is read; fifths of its classes are rounded

    def files(self, root):
        if (found := self.whole.files(root)) is None:
            return None
        listing = found.train
        if small := [f"{name!r} has {len(each)}" for name, each in listing.files.items() if len(each) < HELD_OUT]:
            raise UserError(
                f"{self.name}: class {small[0]} training images; expected {HELD_OUT} or more, of which the last fifth "
                "is held out (of a packed data set, name its source)"
            )
        cut = {name: len(each) - len(each) // HELD_OUT for name, each in listing.files.items()}
        train = Listing(listing.root, {name: each[: cut[name]] for name, each in listing.files.items()})
        val = Listing(listing.root, {name: each[cut[name] :] for name, each in listing.files.items()})
        return ImageFiles(train, val, found.words)

    def load(self, info, root):
        import torch

        from bench.api import Dataset
        from bench.kit.data.dataset import Resident

        made = self.whole.load(self.whole.info(), root)
        parts = [(made.train.labels == label).nonzero()[:MOST, 0] for label in range(info.classes)]
        cuts = [len(part) - len(part) // HELD_OUT for part in parts]
        train = torch.cat([part[:cut] for part, cut in zip(parts, cuts, strict=True)])
        rest = torch.cat([part[cut:] for part, cut in zip(parts, cuts, strict=True)])
        splits = (Resident(made.train.pixels[some], made.train.labels[some]) for some in (train, rest))
        return Dataset(info, made.names, made.ids, *splits)
