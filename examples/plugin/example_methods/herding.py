"""Herding (Welling, ICML 2009), in the features of a teacher: a selection of real images."""

from bench.api import Distiller, ImageBlock, MethodInfo, Task


class Herding(Distiller):
    info = MethodInfo("herding", "Herding", version=1, paper="ICML 2009", labels="teacher", shared=("distill",))

    def distill(self, task: Task):
        import torch

        from bench.kit.data.sampling import class_images
        from bench.kit.models import embed

        teacher, info = task.teacher.model(), task.dataset
        for label in task.blocks(range(info.classes), independent=True):
            real = class_images(task.data.train, label, info.image_size, task.device)
            with torch.no_grad():
                features = torch.cat([embed(teacher, some.float() / 255) for some in real.split(256)])
            chosen, total, mean = [], torch.zeros_like(features[0]), features.mean(0)
            for count in range(1, task.ipc + 1):
                distance = ((total + features) / count - mean).square().sum(1)
                distance[chosen] = torch.inf
                chosen.append(int(distance.argmin()))
                total += features[chosen[-1]]
            yield ImageBlock(real[chosen], torch.full((task.ipc,), label))
