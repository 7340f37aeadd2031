"""The conformance suite of methods."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import ClassVar
from unittest import SkipTest

import torch

from bench.api import Dataset, Distiller, catalogue, registry
from bench.conformance.data import stripes
from bench.conformance.runner import Suite, resumed
from bench.conformance.workbench import Workbench
from bench.errors import UserError
from bench.kit import data as real_data
from bench.kit import images as image_files
from bench.kit import labels as label_folders
from bench.kit.validation import check_logits
from bench.planning.cells import labels_itself
from bench.planning.label_choices import LabelChoice
from bench.planning.protocols import read_settings
from bench.planning.variants import read

_SLOW = 20.0  # CPU seconds of a set of images, above which none is made that another test makes as well
_PLAIN = {".safetensors", ".json", ".jpg", ".png"}


class MethodConformance(Suite):
    """The tests of one method; see :mod:`bench.conformance`.

    ``method`` is a name as of ``--methods``, with settings in brackets, or a class; where they are silent, its
    ``quick`` settings hold. ``dataset`` is a name of ``bench list datasets``; None: the method's ``example_data``, else
    synthetic stripes.
    """

    method: ClassVar[str | type[Distiller]]
    dataset: ClassVar[str | None] = None
    ipc: ClassVar[int] = 2
    data_root: ClassVar[Path | None] = None

    bench: ClassVar[Workbench]

    @classmethod
    def setup_class(cls) -> None:
        """Configure the method for the data set.

        Raises:
            UserError: the method or data set is unknown, or the method refuses the data set at this IPC.
        """
        variant = read(cls.method if isinstance(cls.method, str) else cls.method.info.name)
        kind = registry.method(variant.method) if isinstance(cls.method, str) else cls.method
        read_settings(kind.Config, variant.settings, f"the settings of {variant.method}")
        data = cls._data(kind)
        method = kind.for_dataset(data.info, **{**kind.quick, **variant.settings})
        super().setup_class()
        cls.bench = Workbench(method, data, cls.ipc, Path(cls._folder.name))
        method.check(cls.bench.point)

    @classmethod
    def _data(cls, kind: type[Distiller]) -> Dataset:
        if cls.dataset is None:
            return kind.example_data() or stripes()
        info = catalogue.dataset(cls.dataset)
        if cls.ipc > info.smallest_class:
            raise UserError(f"--ipc {cls.ipc}: the smallest class of {info.name} has {info.smallest_class} images")
        return real_data.load(info, catalogue.root_of(cls.dataset, cls.data_root))

    # -- planning

    def test_module_imports_without_torch(self) -> None:
        home = type(self.bench.method).__module__
        code = f"import sys, importlib; importlib.import_module({home!r}); sys.exit('torch' in sys.modules)"
        path = f"import sys; sys.path[:0] = {sys.path!r}; {code}"
        found = subprocess.run([sys.executable, "-c", path], check=False, capture_output=True).returncode
        assert found == 0, "importing the plug-in imports torch: import it inside the functions that compute"

    def test_info_is_complete(self) -> None:
        info, name = self.bench.method.info, self.method
        if isinstance(name, str):
            called = read(name).method.partition(":")[0]
            assert info.name == called, f"info.name is {info.name!r}, but the entry point is called {called!r}"
        assert info.version >= 1, f"info.version is {info.version}; versions start at 1"
        assert info.title and info.labels, "info needs a title, and who labels: teacher, projector, hard, …"
        if info.stored:
            assert LabelChoice("stored", info.stored).codec  # raises where there is no such codec

    # -- prepare

    def test_prepare_resumes_to_the_same_bits(self) -> None:
        if (before := self.bench.prepare("prepared")) is None:
            raise SkipTest("nothing to prepare")
        again = resumed(self.bench.prepare)
        assert again is not None
        same = again.keys() == before.keys() and all(torch.equal(one, before[name]) for name, one in again.items())
        assert same, "killed and run again, prepare made something else"

    # -- distill

    def test_images_are_valid(self) -> None:
        assert len(self.bench.images) == self.ipc * self.bench.data.info.classes  # checked where they are put together

    def test_identity_tells_seeds_apart(self) -> None:
        """Images that differ by seed have identities that do."""
        bench, other = self.bench, self.bench.with_seed(1)
        if bench.image_cell.id == other.image_cell.id:
            same = torch.equal(bench.images.pixels, other.distill("other-seed").pixels)
            assert same, "the images' identity is the same for seeds 0 and 1: see Distiller.depends_on"

    def test_images_are_the_same_for_the_same_seed(self) -> None:
        if len(self.bench.images) and self.bench.seconds > _SLOW:
            shorter = "brackets, or quick = {…} in the class, shorten it"
            raise SkipTest(f"a set takes {self.bench.seconds:.0f} s, {shorter}; the resumed set shows the same")
        again = self.bench.distill("again").pixels
        assert torch.equal(again, self.bench.images.pixels), "draw all that is random from task.seed_for(purpose)"

    def test_images_resume_to_the_same_bits(self) -> None:
        bench, whole = self.bench, self.bench.images
        late = bench.finish_late() if bench.seconds > _SLOW else None
        again = (late or resumed(bench.distill)).pixels
        assert torch.equal(again, whole.pixels), "killed and run again, distill made other images"

    def test_images_survive_the_disk(self) -> None:
        (folder := self.bench.folder / "image-files").mkdir()
        image_files.save(self.bench.images, folder, "png")
        assert torch.equal(image_files.load(folder).pixels, self.bench.images.pixels.cpu())

    # -- label model

    def test_labels_are_finite_logits(self) -> None:
        self._needs_labels()
        bench = self.bench
        check_logits(bench.logits(bench.source), len(bench.images), bench.data.info.logits, bench.method.info.name)

    def test_labels_resume_to_the_same_bits(self) -> None:
        self._needs_labels()
        if not labels_itself(self.bench.method):
            raise SkipTest("the teacher labels")
        again = resumed(self.bench.label_model, stop_after=3)
        same = torch.equal(self.bench.logits(again), self.bench.logits(self.bench.source))
        assert same, "killed and run again, label_model made another source"

    def test_labels_survive_the_disk(self) -> None:
        """Saved and loaded, a source gives the same labels, from files of safetensors, JSON and encoded images."""
        self._needs_labels()
        (folder := self.bench.folder / "label-files").mkdir()
        self.bench.source.save(folder)
        odd = [path.name for path in folder.rglob("*") if path.is_file() and path.suffix not in _PLAIN]
        assert not odd, f"a label source holds safetensors, JSON and encoded images, not {odd[0]}"
        loaded = label_folders.load(folder, self.bench.device, self.bench.method.label_kinds)
        same = torch.allclose(self.bench.logits(loaded), self.bench.logits(self.bench.source), atol=1e-4, rtol=1e-4)
        assert same, "a label source that was saved and loaded gives other labels"

    def _needs_labels(self) -> None:
        if self.bench.method.info.labels == "hard":
            raise SkipTest("hard labels")
        assert self.bench.images  # before a label model that may be made of them

    # -- at the end, of all stages

    def test_progress_stays_within_its_total(self) -> None:
        wrong = [pair for pair in self.bench.steps if not 0 <= pair[0] <= pair[1]]
        assert not wrong, f"progress{wrong[0]}: expected 0 <= done <= total"
