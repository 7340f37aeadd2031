"""The contract between the benchmark and its plug-ins: all that a plug-in author reads.

Modules named by entry points must import without torch: import torch and ``bench.kit`` inside the functions that
compute.
"""

from bench.api.architectures import Student, TeacherSpec
from bench.api.augmentation import AugmentationConfig, AugmentationSchedule, AugmentedBatch
from bench.api.config import BaseConfig, affects
from bench.api.dataset import (
    Classifier,
    Dataset,
    DatasetInfo,
    GridPoint,
    NetworkSpec,
    Split,
    Trajectory,
)
from bench.api.evaluator import EvaluationRequest, EvaluationTask, Evaluator, Protocol
from bench.api.labels import FrozenBackbone, Images, LabelSize, LabelSource
from bench.api.method import Distiller, MethodCost, MethodInfo, StudentCost
from bench.api.seeds import seed_for
from bench.api.task import Checkpoint, ImageBlock, Progress, Task

__all__ = [
    "AugmentationConfig",
    "AugmentationSchedule",
    "AugmentedBatch",
    "BaseConfig",
    "Checkpoint",
    "Classifier",
    "Dataset",
    "DatasetInfo",
    "Distiller",
    "EvaluationRequest",
    "EvaluationTask",
    "Evaluator",
    "FrozenBackbone",
    "GridPoint",
    "ImageBlock",
    "Images",
    "LabelSize",
    "LabelSource",
    "MethodCost",
    "MethodInfo",
    "NetworkSpec",
    "Progress",
    "Protocol",
    "Split",
    "Student",
    "StudentCost",
    "Task",
    "TeacherSpec",
    "Trajectory",
    "affects",
    "seed_for",
]
