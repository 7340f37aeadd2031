"""The contract between the benchmark and its plug-ins: all that a plug-in author reads.

Modules named by entry points must import without torch: import torch and ``bench.kit`` inside the functions that
compute.
"""

from bench.api.config import BaseConfig
from bench.api.cost import MethodCost, StudentCost
from bench.api.dataset import DatasetInfo, GridPoint, TeacherSpec
from bench.api.evaluator import EvaluationTask, Evaluator, Protocol
from bench.api.labels import ByteCount, FrozenBackbone, Images, LabelSize, LabelSource
from bench.api.method import TEACHER_LABELS, CellSpec, Distiller, MethodInfo, Progress, Task

__all__ = [
    "TEACHER_LABELS",
    "BaseConfig",
    "ByteCount",
    "CellSpec",
    "DatasetInfo",
    "Distiller",
    "EvaluationTask",
    "Evaluator",
    "FrozenBackbone",
    "GridPoint",
    "Images",
    "LabelSize",
    "LabelSource",
    "MethodCost",
    "MethodInfo",
    "Progress",
    "Protocol",
    "StudentCost",
    "Task",
    "TeacherSpec",
]
