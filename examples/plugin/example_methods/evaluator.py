"""An evaluator without training: each test image gets the class of the nearest mean of the synthetic images."""

from bench.api import AugmentationConfig, AugmentationSchedule, Evaluator, Protocol


class NearestMean(Evaluator):
    name, version, Config = "nearest-mean", 1, Protocol
    supported_labels = ("hard",)

    def schedule(self, protocol, dataset, *, ipc, seed):  # of the views that students see: each image once, as it is
        plain = AugmentationConfig(size=dataset.image_size, crop="none", flip=False, mix="none", seed=seed)
        images = ipc * dataset.classes
        return AugmentationSchedule(plan=plain, images=images, epochs=1, batch_size=images)

    def evaluate(self, task):
        import torch

        train, size, classes = task.images or task.data.train, task.dataset.image_size, task.dataset.classes
        if task.images is None:  # the reference row: the whole real training set
            batches = list(train.centered(size, task.device))
            pixels, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
        else:
            pixels, labels = train.pixels.to(task.device), train.labels.to(task.device)
        flat = pixels.flatten(1).float()
        means = torch.stack([flat[labels == label].mean(0) for label in range(classes)])
        found = [
            torch.cdist(batch.flatten(1).float(), means).argmin(1)
            for batch, _ in task.data.test.centered(size, task.device)
        ]
        predicted = torch.cat(found).cpu()
        task.keep_predictions(predicted, task.data.test.labels)
        top1 = (predicted == task.data.test.labels).double().mean().item()
        return {"top1": top1, "oracle_top1": top1, "curve": [[1, top1]]}
