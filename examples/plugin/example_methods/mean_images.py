"""A label model of one's own: the nearer a view is to the mean image of a class, the larger its logit."""

import json
from typing import ClassVar

from bench.api import Distiller, ImageBlock, LabelSource, MethodInfo, Task


class MeanLabels(LabelSource):
    kind = "mean-images"

    def __init__(self, means, sharpness):
        self.means, self.sharpness = means, sharpness  # (C, 3, S, S) in [0, 1]

    def soft_labels(self, views, step):  # logits (B, C) of views.pixels, float32 (B, 3, S, S) in [0, 1]
        import torch

        return -self.sharpness * torch.cdist(views.pixels.flatten(1), self.means.flatten(1))

    def save(self, folder):  # source.json names the kind; what lies here is what the board counts
        from safetensors.torch import save_file

        (folder / "source.json").write_text(json.dumps({"kind": self.kind, "sharpness": self.sharpness}))
        save_file({"means": self.means.cpu()}, folder / "means.safetensors")

    @classmethod
    def load(cls, folder, device):
        from safetensors.torch import load_file

        facts = json.loads((folder / "source.json").read_text())
        return cls(load_file(folder / "means.safetensors")["means"].to(device), facts["sharpness"])


class MeanImages(Distiller):
    info = MethodInfo("mean-images", "Mean images", version=1, paper="an example", labels="mean-images")
    label_kinds: ClassVar = {MeanLabels.kind: "example_methods.mean_images:MeanLabels"}

    def teachers(self, point):
        return ()

    def means(self, task: Task):
        import torch

        from bench.kit.data.sampling import class_images

        every = [class_images(task.data.train, label, task.dataset.image_size, task.device).float().mean(0) / 255
                 for label in range(task.dataset.classes)]  # fmt: skip
        return torch.stack(every)

    def distill(self, task: Task):  # the real images that are nearest to the mean of their class
        import torch

        from bench.kit.data.sampling import class_images

        means = self.means(task)
        for label in task.blocks(range(len(means))):
            real = class_images(task.data.train, label, task.dataset.image_size, task.device)
            nearest = (real.float() / 255 - means[label]).square().sum((1, 2, 3)).argsort(stable=True)[: task.ipc]
            yield ImageBlock(real[nearest], torch.full((task.ipc,), label))

    def label_model(self, task: Task):
        return MeanLabels(self.means(task), sharpness=2.0)
