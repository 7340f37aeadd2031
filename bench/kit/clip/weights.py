"""The weights of open_clip that a name stands for: their file, and the tag whose settings hold.

Names: ``ARCH:TAG``; ``ARCH:TAG@/path``, a copy of that tag's file or weights like it; ``ARCH:/path``, a file whose tag
follows from its SHA-256 or its name, or does not matter because all tags of the architecture have the same settings;
``ARCH:none@/path``, a file with the settings of the architecture itself.
"""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import huggingface_hub
import open_clip

from bench.errors import UserError, unknown
from bench.kit.clip.naming import ICON_CLIP, UNTRAINED, file_digest, split

SETTINGS = ("quick_gelu", "mean", "std", "interpolation", "resize_mode")  # of a tag; by which networks differ
SECONDS = 5.0  # in which a server must answer
_HUB_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")


@dataclass(frozen=True)
class Weights:
    """An architecture, the tag whose activation and preprocessing hold (empty: its own), and the file if it is here."""

    arch: str
    tag: str
    path: Path | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """Settings of the tag in open_clip."""
        found: dict[str, Any] = open_clip.get_pretrained_cfg(self.arch, self.tag)
        return found

    def fetch(self) -> Path:
        """Return the file, fetched into open_clip's cache if need be.

        Raises:
            UserError: it is not here and can't be fetched.
        """
        if self.path is not None:
            return self.path
        self.check_server()
        try:
            return Path(open_clip.download_pretrained(self.settings))
        except Exception as error:  # the two download clients share no base class
            raise self._unreachable(type(error).__name__) from None

    def check_server(self) -> None:
        """Refuse weights whose server does not answer at once: the clients would try again for minutes."""
        if os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0"):
            raise self._unreachable("HF_HUB_OFFLINE is set")
        repository, name = _hub_file(self.settings)
        url = huggingface_hub.hf_hub_url(repository, name or _HUB_FILES[0]) if repository else self.settings["url"]
        try:
            urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=SECONDS).close()
        except urllib.error.HTTPError:
            pass  # it answers
        except (OSError, ValueError) as error:
            raise self._unreachable(type(error).__name__) from None

    def _unreachable(self, why: str) -> UserError:
        return UserError(
            f"{self.arch}:{self.tag} is not on this machine and could not be fetched ({why}); on a machine with a "
            f"network run `python -c \"import open_clip; open_clip.create_model('{self.arch}', '{self.tag}')\"`, copy "
            f"the weights file over and name it: --clip {self.arch}:{self.tag}@/path/to/file"
        )


def find(name: str) -> Weights:
    """Find what a name stands for, without fetching it.

    Raises:
        UserError: an unknown architecture or tag, no such file, or one that may be of several kinds.
    """
    arch, tag, file = split(name)
    models = open_clip.list_models()
    if arch not in models or not (tag or file):
        said = f"unknown CLIP {arch!r}, which names no weights" if arch in models else ""
        said = said or str(unknown("CLIP", arch, [ICON_CLIP, *models])).partition(";")[0]
        raise UserError(
            f"{said}; expected icon-clip, ARCH:TAG as open_clip lists them, e.g. RN50:openai, or ARCH:TAG@/path/to/file"
        )
    tags = open_clip.list_pretrained_tags_by_model(arch)
    if tag and tag not in (*tags, UNTRAINED):
        raise UserError(f"{unknown(f'weights of {arch}', tag, tags)}; or a file of them: --clip {arch}:TAG@/path")
    if not file:
        return Weights(arch, tag, _cached(open_clip.get_pretrained_cfg(arch, tag)))
    path = Path(os.path.expanduser(file))  # noqa: PTH111 - Path's own fails without a home
    if not path.is_file():
        raise UserError(f"{path}: no such weights file; expected a checkpoint of {arch} that open_clip can read")
    return Weights(arch, ("" if tag == UNTRAINED else tag) if tag else _tag_of(arch, path, tags), path)


def check(name: str) -> None:
    """Refuse a CLIP that can't be loaded, without loading it.

    Raises:
        UserError: as :func:`find`; its weights are not here and their server doesn't answer; or its tokenizer needs a
            package that is not installed.
    """
    arch, _, _ = split(name)
    text = (open_clip.get_model_config(arch) or {}).get("text_cfg", {})
    found = Weights(arch, UNTRAINED) if name == f"{arch}:{UNTRAINED}" and text else find(name)
    if found.path is None and found.tag != UNTRAINED:
        found.check_server()
    foreign = {"hf_tokenizer_name", "hf_model_name"} & text.keys() or "siglip" in arch.lower()
    if foreign and find_spec("transformers") is None:
        raise UserError(
            f"--clip {name}: its tokenizer needs the package transformers; pip install transformers, or choose a CLIP "
            "with its own tokenizer, e.g. RN50:openai"
        )


def _tag_of(arch: str, path: Path, tags: list[str]) -> str:
    """Say which tag's settings a file takes: by its SHA-256, by its name, or because all tags have the same."""
    digest = file_digest(path)
    same = [one for one in open_clip.list_pretrained() if (known := _sha256(*one)) and digest.startswith(known)]
    if same:
        of: dict[str, str] = dict(same)
        if arch not in of:
            model, tag = same[0]
            raise UserError(f"{path} holds {model}:{tag} and not {arch}; name it --clip {model}:{tag}@{path}")
        return of[arch]
    place, stem = _words(path.resolve().as_posix()), f"-{_words(path.stem)}-"
    named = [tag for tag in tags if f"-{_words(tag)}-" in stem or _words(_repository(arch, tag)) in place]
    kinds = {tuple(map(open_clip.get_pretrained_cfg(arch, tag).get, SETTINGS)): tag for tag in named or tags}
    if len(kinds) > 1:
        raise UserError(
            f"{path}: the weights of {arch} come with different activations or pixel statistics, and neither digest "
            f"nor name tells which these are; say whose settings they take: --clip {arch}:TAG@{path}, TAG one of "
            f"{', '.join(tags)}, or none for the architecture's own"
        )
    return next(iter(kinds.values()), "")


def _words(text: str) -> str:
    return text.lower().replace("_", "-").replace(".", "-").replace("/", "-")


def _sha256(arch: str, tag: str) -> str:
    """Return what the address of a tag's file says of its SHA-256, at least its beginning."""
    url: str = open_clip.get_pretrained_cfg(arch, tag).get("url", "")
    last = url.rpartition("/")[2].rpartition(".")[0].rpartition("-")[2]
    return next((part for part in (*url.split("/")[-2:-1], last) if len(part) in (8, 64) and _is_hex(part)), "")


def _is_hex(text: str) -> bool:
    return not set(text) - set("0123456789abcdef")


def _repository(arch: str, tag: str) -> str:
    """Return the folder of a tag in the cache of the hub."""
    repository, _ = _hub_file(open_clip.get_pretrained_cfg(arch, tag))
    return f"models--{repository.replace('/', '--')}" if repository else "/no repository/"


def _hub_file(settings: dict[str, Any]) -> tuple[str, str]:
    """Return repository and file of a tag, each empty where open_clip knows none."""
    repository, _, file = settings.get("hf_hub", "").rpartition("/")
    return repository, file


def _cached(settings: dict[str, Any]) -> Path | None:
    """Return the file of a tag where a download left it."""
    repository, file = _hub_file(settings)
    for name in ((file,) if file else _HUB_FILES) if repository else ():
        if isinstance(found := huggingface_hub.try_to_load_from_cache(repository, name), str):
            return Path(found)
    return None
