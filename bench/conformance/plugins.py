"""The conformance suites of evaluators, students and label codecs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar
from unittest import SkipTest

import torch

from bench.api import EvaluationTask, Evaluator, Images, Protocol, registry
from bench.api.stored.codec import NumberFormat
from bench.api.stored.columns import ITEM_BYTES
from bench.conformance.data import SIDE, stripes
from bench.conformance.runner import Suite, killed_after, resumed
from bench.kit import models

KINDS = {"online", "teacher", "stored", "static", "hard"}


class EvaluatorConformance(Suite):
    """The tests of one evaluator.

    ``evaluator`` is a name or a class; ``settings`` are fields of its protocol, for a run of seconds.
    """

    evaluator: ClassVar[str | type[Evaluator]]
    settings: ClassVar[dict[str, Any]] = {}
    ipc: ClassVar[int] = 2

    kind: ClassVar[type[Evaluator]]
    protocol: ClassVar[Protocol]

    @classmethod
    def setup_class(cls) -> None:
        """Read the protocol."""
        super().setup_class()
        cls.kind = registry.evaluator(cls.evaluator) if isinstance(cls.evaluator, str) else cls.evaluator
        facts = {"name": "conformance", "version": 1, "track": "named", "title": "conformance"}
        cls.protocol = cls.kind.Config.model_validate({**facts, "evaluator": cls.kind.name, **cls.settings})

    def test_schedule_follows_from_the_seed(self) -> None:
        info = stripes().info
        made = [self.kind().schedule(self.protocol, info, ipc=self.ipc, seed=seed) for seed in (0, 0, 1)]
        assert made[0] == made[1], "the same seed gave other views"
        assert made[0] != made[2], "seeds 0 and 1 give the same views"
        assert made[0].images == self.ipc * info.classes, f"the schedule is of {made[0].images} images"
        assert self.kind().samples_seen(self.protocol, info, ipc=self.ipc) > 0

    def test_supported_labels_are_known_kinds(self) -> None:
        odd = set(self.kind.supported_labels) - KINDS
        assert not odd, f"supported_labels names {sorted(odd)}, expected some of {sorted(KINDS)}"

    def test_metrics_are_plain_and_repeatable(self) -> None:
        first = self._evaluate("first")
        assert json.loads(json.dumps(first)) is not None
        if self.kind.metric != "cost":
            assert 0 <= first["top1"] <= 1, f"top1 is {first['top1']}, expected a fraction"
        if self.kind.exclusive:
            raise SkipTest("it measures time")
        assert self._evaluate("second") == first, "the same seed gave other metrics"

    def test_metrics_resume_to_the_same_bits(self) -> None:
        if self.kind.exclusive:
            raise SkipTest("it measures time")
        assert resumed(self._evaluate) == self._evaluate("whole"), "killed and run again, it gave other metrics"

    def _evaluate(self, place: str, stop_after: int | None = None) -> dict[str, Any]:
        data = stripes()
        chosen = torch.cat([(data.train.labels == c).nonzero().flatten()[: self.ipc] for c in range(data.info.classes)])
        pixels = torch.stack([data.train.image(int(index)) for index in chosen])
        (work := Path(self._folder.name) / place).mkdir(exist_ok=True)
        task = EvaluationTask(
            dataset=data.info, data=data, images=Images(pixels, data.train.labels[chosen]), labels=None,
            student=data.info.student, protocol=self.protocol, ipc=self.ipc, seed=0, device=torch.device("cpu"),
            work=work, progress=killed_after(stop_after),
        )  # fmt: skip
        return self.kind().evaluate(task)


class StudentConformance(Suite):
    """The tests of one network of ``bench.students``, called ``student``, at ``image_size`` pixels."""

    student: ClassVar[str]
    image_size: ClassVar[int] = SIDE
    classes: ClassVar[int] = 7

    def _build(self, seed: int) -> torch.nn.Module:
        torch.manual_seed(seed)
        return models.build(self.student, self.classes, self.image_size, (0.5,) * 3, (0.25,) * 3)

    def test_logits_have_a_column_per_class(self) -> None:
        logits = self._build(0)(torch.rand(3, 3, self.image_size, self.image_size))
        assert logits.dtype == torch.float32 and tuple(logits.shape) == (3, self.classes), (
            f"the network maps 3 images to {logits.dtype} {tuple(logits.shape)}, expected float32 {(3, self.classes)}"
        )
        assert logits.isfinite().all(), "logits of a new network are not finite"

    def test_weights_follow_from_torchs_random_stream(self) -> None:
        first, same, other = (self._build(seed).state_dict() for seed in (0, 0, 1))
        assert all(torch.equal(first[name], same[name]) for name in first), "one seed gave two networks"
        assert any(not torch.equal(first[name], other[name]) for name in first), "two seeds gave one network"

    def test_gradients_reach_every_parameter(self) -> None:
        net = self._build(0).train()
        net(torch.rand(4, 3, self.image_size, self.image_size)).logsumexp(1).sum().backward()
        idle = [name for name, one in net.named_parameters() if one.requires_grad and one.grad is None]
        assert not idle, f"no gradient reaches {idle[0]}"


class CodecConformance(Suite):
    """The tests of one number format of stored labels.

    ``tolerance`` is the largest error of a logit, of logits with a standard deviation of 3.
    """

    codec: ClassVar[type[NumberFormat]]
    tolerance: ClassVar[float] = 0.5

    def test_columns_are_what_is_encoded(self) -> None:
        for width in (1, 7, 100):
            parts, columns = self.codec().encode(self._logits(width)), self.codec().columns(width)
            assert parts.keys() == columns.keys(), f"encode returns {sorted(parts)}, columns has {sorted(columns)}"
            for name, (dtype, numbers) in columns.items():
                assert tuple(parts[name].shape) == (5, numbers), f"{name} is {tuple(parts[name].shape)} for {width}"
                assert parts[name].element_size() == ITEM_BYTES[dtype], f"{name} is {parts[name].dtype}, not {dtype}"

    def test_rows_are_encoded_by_themselves(self) -> None:
        """A batch may be cut anywhere."""
        whole, half = self.codec().encode(self._logits(7)), self.codec().encode(self._logits(7)[:2])
        assert all(torch.equal(whole[name][:2], part) for name, part in half.items()), "a row depends on its batch"

    def test_logits_come_back(self) -> None:
        for width in (1, 7, 100):
            logits = self._logits(width)
            decoded = self.codec().decode(self.codec().encode(logits), width)
            assert decoded.dtype == torch.float32 and decoded.shape == logits.shape
            error = float((decoded - logits).abs().max())
            assert error <= self.tolerance, f"a logit comes back {error:.3g} off"

    @staticmethod
    def _logits(width: int) -> torch.Tensor:
        return 3 * torch.randn(5, width, generator=torch.Generator().manual_seed(width))
