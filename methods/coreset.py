"""Coresets: real images of each class, chosen by a score of the teacher's trajectory.

Scores are of the softmax p on the plain image, y its class, and of the penultimate features of the last checkpoint; the
checkpoints are those that the teacher keeps anyway. All is done class by class, ties go to the first image.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from bench.api import BaseConfig, Distiller, GridPoint, Images, MethodInfo, Task, affects
from bench.api.config import Artifact
from bench.errors import UserError
from methods.random_real import RandomReal, whole_images

if TYPE_CHECKING:
    from torch import Tensor

GEOMETRIC = ("kcenter", "herding")  # chosen by features
BINS = 50  # of CCS


class Coreset(Distiller):
    """IPC real images per class by a score, as test images are. Labels: the teacher's, or any other choice."""

    info: ClassVar[MethodInfo] = MethodInfo(
        name="coreset", title="Coreset", version=1, look=7, paper="arXiv 2604.18811", labels="teacher",
        shared=("prepare",),
    )  # fmt: skip

    class Config(BaseConfig):
        score: Literal["random", "el2n", "forgetting", "margin", "entropy", "kcenter", "herding", "ccs", "cad"] = "el2n"
        easy: bool = False  # the lowest scores instead of the highest, the hardest
        offset: int = Field(0, ge=0)  # images per class passed over at that end: the hardest are often mislabelled
        early: float = Field(1 / 3, gt=0, le=1)  # assumed: the checkpoints that el2n is the mean over, from the first
        never_learned: Literal["most", "none"] = "most"  # forgetting: above all others (the paper), or 0 (DeepCore)
        beta: float = Field(0.3, ge=0, lt=1)  # ccs: the share of hardest images left out (assumed for these IPC)
        length: int = Field(6, ge=2)  # cad: checkpoints of a window (J), and how many windows (W)
        windows: int = Field(2, ge=1)
        batch_size: Annotated[int, affects("speed"), Field(ge=1)] = 256

    config: Config

    def check(self, point: GridPoint) -> None:
        config, name = self.config, f"coreset[score={self.config.score}]"
        most = point.dataset.smallest_class - config.offset
        if config.score == "ccs":
            most = point.dataset.smallest_class - math.floor(config.beta * point.dataset.smallest_class)
        if point.ipc > most:
            raise UserError(
                f"{name} at IPC {point.ipc} on {point.dataset.name} has {most} images per class to choose from; lower "
                f"--ipc, or coreset.{'beta' if config.score == 'ccs' else 'offset'}"
            )
        needed, kept = config.windows + 2, point.dataset.teacher.checkpoints
        if config.score == "cad" and kept < needed:
            raise UserError(f"{name} needs {needed} checkpoints and the teacher keeps {kept}; lower coreset.windows")

    def images_from(self, point: GridPoint) -> RandomReal | None:
        return RandomReal() if self.config.score == "random" else None

    def distills(self, point: GridPoint) -> bool:
        return self.config.score != "random"

    def depends_on(self, artifact: Artifact, point: GridPoint) -> Mapping[str, Any]:
        """Share the scores among all, and the images among all seeds where nothing is drawn."""
        if artifact == "prepared":
            return {"features": True} if self.config.score in GEOMETRIC else {}
        if artifact == "images":
            return {"ipc": point.ipc, **({"seed": point.seed} if self.config.score == "ccs" else {})}
        return super().depends_on(artifact, point)

    def prepare(self, task: Task) -> Iterator[Mapping[str, Tensor]]:
        """Yield ``el2n``, ``margin`` and ``right`` (1, N) of each checkpoint, of the last ``entropy`` or ``features``.

        The margin is p_y less the largest other probability; features are (N, D) in fp16.
        """
        import torch

        from bench.kit.models.features import penultimate

        last = task.teacher.epochs[-1]
        for epoch in task.blocks(task.teacher.epochs, independent=True):
            model = task.teacher.model(epoch)
            found: dict[str, list[Tensor]] = {}
            images = task.data.train.centered(task.dataset.image_size, task.device, self.config.batch_size)
            for pixels, labels in images:
                views = pixels.float().div_(255)
                with torch.no_grad():
                    scores = of_probabilities(model(views).softmax(1), labels)
                    entropy = scores.pop("entropy")
                    if epoch == last and self.config.score not in GEOMETRIC:
                        scores["entropy"] = entropy
                    elif epoch == last:
                        seen = penultimate(model.net, views * model.scale + model.shift, task.dataset.classes)
                        if seen is None:
                            raise UserError("the teacher has no linear head, so no features; choose another score")
                        scores["features"] = seen[0].half()
                for name, values in scores.items():
                    found.setdefault(name, []).append(values.cpu())
            joined = {name: torch.cat(values) for name, values in found.items()}
            yield {name: values if name in ("entropy", "features") else values[None] for name, values in joined.items()}

    def distill(self, task: Task) -> Images:
        import torch

        labels, chosen = task.data.train.labels, []
        for label in range(task.dataset.classes):
            members = (labels == label).nonzero().flatten()
            own = {name: t[members] if name in ("entropy", "features") else t[:, members]
                   for name, t in task.prepared.items()}  # fmt: skip
            chosen.append(members[select(self.config, own, task.ipc, task.seed_for("coreset", label))])
        return whole_images(task, torch.cat(chosen))


def of_probabilities(p: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Return the scores (B,) of probabilities (B, C): EL2N in [0, √2], margin, entropy, and whether they are right."""
    import torch
    from torch.nn import functional as F

    true = F.one_hot(labels, p.shape[1]).to(p.dtype)
    others = (p - 2 * true).amax(1)
    return {
        "el2n": torch.linalg.vector_norm(p - true, dim=1),
        "margin": (p * true).sum(1) - others,
        "right": p.argmax(1) == labels,
        "entropy": torch.special.entr(p).sum(1),
    }


def select(config: Coreset.Config, own: Mapping[str, Tensor], count: int, seed: int) -> Tensor:
    """Choose ``count`` images (count,) of a class by their scores (K, n) of K checkpoints, and (n,) or (n, D)."""
    if config.score == "kcenter":
        return k_center(own["features"].float(), count)
    if config.score == "herding":
        return herding(own["features"].float(), count)
    hard = hardness(config, own)
    if config.score == "ccs":
        return stratified(hard, count, config.beta, seed)
    return hard.argsort(stable=True, descending=not config.easy)[config.offset : config.offset + count]


def hardness(config: Coreset.Config, own: Mapping[str, Tensor]) -> Tensor:
    """Return how hard each image is (n,)."""
    el2n: Tensor = own["el2n"]
    if config.score == "el2n":
        return el2n[: math.ceil(len(el2n) * config.early)].mean(0)
    if config.score == "forgetting":
        events = (own["right"][:-1] & ~own["right"][1:]).sum(0).float()
        if config.never_learned == "most":
            events = events.masked_fill(~own["right"].any(0), len(el2n))
        return events + el2n.mean(0) / 2  # below 1: it breaks ties
    if config.score in ("margin", "ccs"):
        return -own["margin"].sum(0)  # the area under the margin, over the checkpoints
    return own["entropy"] if config.score == "entropy" else cad(el2n, config.length, config.windows)


def cad(scores: Tensor, length: int, windows: int) -> Tensor:
    """Return the mean standard deviation (n,) of scores (K, n) in the last windows but one.

    Those are of ``length`` checkpoints, or as many as leave room for ``windows``; the very last is not used.
    """
    length = min(length, len(scores) - windows)
    return scores.unfold(0, length, 1).std(2)[-windows - 1 : -1].mean(0)


def k_center(features: Tensor, count: int) -> Tensor:
    """Choose the medoid of features (n, D), then always what is farthest from all chosen."""
    import torch

    chosen = [int(torch.cdist(features, features).sum(1).argmin())]
    away = torch.full((len(features),), math.inf)
    while len(chosen) < count:
        away = torch.minimum(away, torch.linalg.vector_norm(features - features[chosen[-1]], dim=1))
        away[chosen[-1]] = -1  # of equal images too
        chosen.append(int(away.argmax()))
    return torch.tensor(chosen)


def herding(features: Tensor, count: int) -> Tensor:
    """Choose so that the sum of t + 1 features comes nearest to t + 1 times their mean, one after the other."""
    import torch

    mean, total, chosen = features.mean(0), torch.zeros_like(features[0]), list[int]()
    for step in range(count):
        away = torch.linalg.vector_norm((step + 1) * mean - total - features, dim=1)
        away[chosen] = math.inf
        chosen.append(int(away.argmin()))
        total = total + features[chosen[-1]]
    return torch.tensor(chosen)


def budgets(sizes: Sequence[int], count: int) -> list[int]:
    """Fill the smallest bin first with an equal share of what is left; the budgets add up to ``count``."""
    found, left = [0] * len(sizes), count
    filled = sorted((bin_ for bin_ in range(len(sizes)) if sizes[bin_]), key=lambda bin_: sizes[bin_])
    for place, bin_ in enumerate(filled):
        found[bin_] = min(sizes[bin_], left // (len(filled) - place))
        left -= found[bin_]
    return found


def stratified(hard: Tensor, count: int, beta: float, seed: int) -> Tensor:
    """Choose from equal bins of the score's range, without the hardest (CCS, Zheng et al., ICLR 2023)."""
    import torch

    kept = hard.argsort(stable=True)[: len(hard) - math.floor(beta * len(hard))]  # so that draws ignore the order
    low, high = hard[kept[0]], hard[kept[-1]]
    bins = ((hard[kept] - low) / (high - low).clamp(min=1e-12) * BINS).long().clamp(max=BINS - 1)
    draws, chosen = torch.Generator().manual_seed(seed), []
    for bin_, budget in enumerate(budgets(torch.bincount(bins, minlength=BINS).tolist(), count)):
        members = kept[bins == bin_]
        chosen.append(members[torch.randperm(len(members), generator=draws)[:budget]])
    return torch.cat(chosen)
