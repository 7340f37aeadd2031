"""A data set that is generated: a spot of one of three colours on a dark square."""

from bench.api import DatasetInfo, TeacherSpec
from bench.api.catalogue import DatasetPlugin


class Spots(DatasetPlugin):
    def info(self):  # torch-free: planning reads it
        return DatasetInfo(
            name="spots",
            title="Spots of three colours",
            classes=3,
            image_size=16,
            smallest_class=40,
            train_images=120,
            test_images=60,
            mean=(0.2,) * 3,
            std=(0.2,) * 3,
            clip="icon-clip",
            student="convnet3-w32",
            teacher=TeacherSpec(arch="convnet3-w32", image_size=16, epochs=9),
        )

    def load(self, info, root):  # root: --data-root
        from bench.api import Dataset

        names = ("red spot", "green spot", "blue spot")
        return Dataset(info, names, ("red", "green", "blue"), self.split(40, seed=0), self.split(20, seed=1))

    def split(self, each, seed):
        import torch

        from bench.kit.data.dataset import Resident  # or Files, of paths

        stream = torch.Generator().manual_seed(seed)
        labels = torch.arange(3).repeat_interleave(each)
        pixels = torch.randint(0, 90, (3 * each, 3, 16, 16), generator=stream)
        corners = torch.randint(0, 9, (3 * each, 2), generator=stream)
        for image, label, (top, left) in zip(pixels, labels, corners.tolist(), strict=True):
            image[label, top : top + 8, left : left + 8] += 120
        return Resident(pixels.to(torch.uint8), labels)  # uint8 (N, 3, H, W), int64 (N,)
