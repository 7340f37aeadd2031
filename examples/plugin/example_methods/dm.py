"""Distribution matching (Zhao and Bilen, WACV 2023, arXiv 2110.04181), without its augmentation."""

from bench.api import BaseConfig, Distiller, ImageBlock, MethodInfo, Task


class DistributionMatching(Distiller):
    info = MethodInfo("dm", "DM", version=1, paper="arXiv 2110.04181", labels="hard", shared=("distill",))

    class Config(BaseConfig):
        iterations: int = 1000
        batch_size: int = 256  # real images per step
        lr: float = 0.1  # of pixels in [0, 1]

    config: Config

    def distill(self, task: Task):
        import torch  # plug-ins import without torch: what computes imports it

        from bench.kit.data.sampling import class_images
        from bench.kit.images import quantise
        from bench.kit.models import build, embed

        info, config = task.dataset, self.config
        for label in task.blocks(range(info.classes), independent=True):
            real = class_images(task.data.train, label, info.image_size, task.device).float() / 255
            torch.manual_seed(task.seed_for("dm-start", label))
            made, first = real[torch.randperm(len(real))[: task.ipc]], 0
            if found := task.checkpoint.load():
                made, first = found[0]["made"].to(task.device), found[1]["step"]
            for step in range(first, config.iterations):
                torch.manual_seed(task.seed_for("dm-step", step))  # the same network for all classes
                net = build("convnet3", info.classes, info.image_size, info.mean, info.std).to(task.device)
                batch = real[torch.randperm(len(real))[: config.batch_size]]
                gap = embed(net, made.requires_grad_()).mean(0) - embed(net, batch).mean(0).detach()
                made = (made - config.lr * torch.autograd.grad(gap.square().sum(), made)[0]).detach()
                if task.checkpoint.due():
                    task.checkpoint.save({"made": made}, step=step + 1)
                task.progress(step + 1, config.iterations)
            yield ImageBlock(quantise(made), torch.full((task.ipc,), label))
