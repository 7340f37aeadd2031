"""The check before any distillation that a teacher is as good as stated on this data, and what is wrong if not.

A class order that differs from the teacher's is the most common silent error of the field (chance accuracy, or about
half of the teacher's), so nothing is made with a teacher that does not pass.
"""

from __future__ import annotations

import json

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.api import Dataset, TeacherSpec
from bench.errors import UserError
from bench.kit.accuracy import TestImages
from bench.kit.teachers.foreign import natural
from bench.kit.teachers.trajectory import CHECK_IMAGES, Network, Trajectory

TOLERANCE = 0.01  # of accuracy; other kernels on other devices flip a few images, not one in a hundred
_BETTER = 0.03  # of accuracy: what another normalisation must win before it is believed to be the teacher's
_FEW = 20  # classes whose order is printed
_PER_CLASS = 10  # test images with which an unknown class order is looked for
NORMALISATIONS = {
    "ImageNet's": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "CIFAR's": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "from -1 to 1": ((0.5,) * 3, (0.5,) * 3),
    "none": ((0.0,) * 3, (1.0,) * 3),
    "none, of 0 to 255": ((0.0,) * 3, (1 / 255,) * 3),
}


def check(teacher: Trajectory, dataset: Dataset, device: torch.device) -> None:
    """Compare a teacher's accuracy on held-out images with its record.

    Raises:
        UserError: another class order, or another accuracy than the record's.
    """
    if teacher.order_hash != dataset.order_hash:
        raise UserError(
            f"the teacher {teacher.folder.name} was trained with another class order than {dataset.info.name} has "
            f"now ({teacher.order_hash[:12]} against {dataset.order_hash[:12]}): class order? Restore the order, or "
            "train a new teacher with --force teacher"
        )
    images = TestImages(dataset.test, teacher.network.image_size, device, CHECK_IMAGES)
    top1 = images.top1(teacher.model())
    if abs(top1 - teacher.accuracy_check) > TOLERANCE:
        raise UserError(
            f"the teacher {teacher.folder.name} reaches {top1:.1%} on {images.count} held-out images of "
            f"{dataset.info.name}, but its record says {teacher.accuracy_check:.1%}: class order? Check the data, or "
            "train a new teacher with --force teacher"
        )


def check_foreign(
    spec: TeacherSpec, network: Network, state: dict[str, Tensor], dataset: Dataset, device: torch.device, top1: float
) -> None:
    """Refuse a teacher from files that misses its stated accuracy, is close to guessing, or is normalised otherwise.

    Args:
        top1: its accuracy on all test images.

    Raises:
        UserError: says which class order or normalisation suits it, if one does.
    """
    classes = dataset.info.classes
    least = (3 if classes > 4 else 1) / classes  # of few classes, a poor teacher is near three times guessing
    where = f"the teacher file {spec.files[-1]} reaches {top1:.1%} on the test images of"
    if spec.accuracy is not None and top1 < spec.accuracy - TOLERANCE:
        problem = f", not the stated {spec.accuracy:.1%}"
    elif spec.accuracy is not None and top1 > spec.accuracy + TOLERANCE:
        raise UserError(f"{where} {dataset.info.name}, more than the stated {spec.accuracy:.1%}; correct --set "
                        f"teacher.accuracy={top1:.4f}, or was it trained on test images?")  # fmt: skip
    elif spec.accuracy is None and top1 < least:
        problem = f", which is {'close to' if classes > 4 else 'less than'} guessing ({1 / classes:.1%})"
    elif spec.accuracy is not None or spec.mean is not None:
        return
    else:
        problem = ""
    found = explain(network, state, dataset, device, orders=bool(problem))
    if problem or found:
        cause = (
            found or "neither another normalisation nor another class order explains it; was it trained on this data?"
        )
        raise UserError(f"{where} {dataset.info.name}{problem}: {cause}")


def explain(network: Network, state: dict[str, Tensor], dataset: Dataset, device: torch.device, orders: bool) -> str:
    """Say which normalisation or class order makes a teacher better than it is on a few test images; "": none.

    Args:
        orders: try class orders too, not normalisations alone.
    """
    limit = max(CHECK_IMAGES, _PER_CLASS * dataset.info.classes if orders else 0)
    images = TestImages(dataset.test, network.image_size, device, limit)
    places = torch.arange(images.count) * len(dataset.test) // images.count
    labels = dataset.test.labels[places].numpy()
    right, causes = 0, list[tuple[float, str]]()
    stated = {"the data set's": (network.mean, network.std)}
    for name, (mean, std) in (stated | NORMALISATIONS).items():
        images.top1(network.model_copy(update={"mean": mean, "std": std}).with_state(state, device))
        answers = images.predicted().numpy()
        hits = int((answers == labels).sum())
        right = hits if name in stated else right
        how = "" if name in stated else (
            f"normalisation? Under another ({name}) {{}} are right; set --set 'teacher.mean={list(mean)}' --set "
            f"'teacher.std={list(std)}'"
        )  # fmt: skip
        causes.append((hits, how))
        for order, score in _orders(answers, labels, dataset.ids) if orders else ():
            also = how and f"{how.format(f'{hits / len(labels):.1%}')} and "
            causes.append((score, f"{also}class order? {order}"))
    best, cause = max(causes, key=lambda one: (one[0], not one[1]))
    if best - right < max(_BETTER * len(labels), 10 if not orders else 1):
        return ""
    return cause.format(f"{best / len(labels):.1%}")


def _orders(answers: NDArray[np.int64], labels: NDArray[np.int64], ids: tuple[str, ...]) -> list[tuple[str, float]]:
    """Return class orders of the rows of a head, each with the images that would be right under it."""
    from scipy.optimize import linear_sum_assignment  # here: most runs need no diagnosis

    found = []
    for name, key in (("sorted", str), ("natural", natural)):
        rows = np.array(sorted(range(len(ids)), key=lambda place: key(ids[place])))
        if (rows != np.arange(len(ids))).any():
            score = float((rows[answers] == labels).sum())
            found.append(
                (f"In that of its sorted class ids {{}} are right; set --set teacher.class_order={name}", score)
            )
    score = 0.0
    for fold in (0, 1):  # an order fitted to some images counts by the others
        fit, test = np.arange(len(labels)) % 2 == fold, np.arange(len(labels)) % 2 != fold
        counts = np.zeros((len(ids), len(ids)))
        np.add.at(counts, (answers[fit], labels[fit]), 1)
        rows = linear_sum_assignment(counts, maximize=True)[1]
        score += float((rows[answers[test]] == labels[test]).sum())
    how = "In another {} are right; state the ids in the order of its rows as class_order in a TOML file beside it"
    if len(ids) <= _FEW:
        np.add.at(counts, (answers[test], labels[test]), 1)
        order = json.dumps([ids[row] for row in linear_sum_assignment(counts, maximize=True)[1]], ensure_ascii=False)
        order = order.replace("{", "{{").replace("}", "}}")
        how = f"In another {{}} are right; write into a TOML file beside it: class_order = {order}"
    found.append((how, score * 0.98))  # a named order goes first
    return found
