"""The models known by name, where their files lie, and their hashes. No torch here."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from .errors import InputError, ModelError
from .files.whole_files import file_sha256, replacing

_RECORDS = "hashes.json"


@dataclass(frozen=True)
class ModelInfo:
    """A named model.

    source : "builtin" (comes with SlideSAM), "download" (from `url`) or "file" (the user fetches
        the file from `page`, as no direct address exists).
    size : bytes of the file, approximately; None where unknown.
    sha256 : of the file; None where its authors state none. The hash of such a file is recorded
        when it is first used, and compared from then on.
    kind : how the network wants to be used (`sam.checkpoints.KINDS`); None = as its tensors say.
    """

    name: str
    title: str
    licence: str
    source: str
    file: str
    page: str
    size: int | None = None
    url: str | None = None
    sha256: str | None = None
    kind: str | None = None

    @property
    def path(self) -> Path:
        """Where the file lies, or would lie."""
        if self.source == "builtin":
            package = Path(__file__).resolve().parent
            # a checkout or Slicer's folder, then an installed wheel
            for folder in (package.parent / "Resources" / "Models", package / "weights"):
                if os.path.isfile(folder / self.file):
                    return folder / self.file
        return models_folder() / self.file

    @property
    def installed(self) -> bool:
        # Not Path.is_file, which raises where the folder cannot be looked into.
        return os.path.isfile(self.path)


_SAM_URL = "https://dl.fbaipublicfiles.com/segment_anything/"
_SAM_PAGE = "https://github.com/facebookresearch/segment-anything"
_SLIDESAM_PAGE = "https://github.com/Curli-quan/Slide-SAM"


def _sam(letter: str, size: int, tag: str, sha256: str) -> ModelInfo:
    file = f"sam_vit_{letter}_{tag}.pth"
    return ModelInfo(
        name=f"sam-vit-{letter}",
        title=f"SAM ViT-{letter.upper()}, lifted to three slices",
        licence="Apache-2.0",
        source="download",
        file=file,
        page=_SAM_PAGE,
        size=size,
        url=_SAM_URL + file,
        sha256=sha256,
        kind="sam",
    )


def _slidesam(letter: str) -> ModelInfo:
    return ModelInfo(
        name=f"slidesam-{letter.lower()}",
        title=f"Slide-SAM-{letter}, as published (authors' Google Drive: choose the file)",
        licence="Apache-2.0",
        source="file",
        file=f"slidesam_{letter.lower()}.pth",
        page=_SLIDESAM_PAGE,
    )


CATALOGUE: dict[str, ModelInfo] = {
    info.name: info
    for info in (
        ModelInfo(
            name="builtin",
            title="Built-in model, works offline",
            licence="Apache-2.0",
            source="builtin",
            file="slidesam-builtin.safetensors",
            page="https://github.com/SlideSAM/SlicerSlideSAM",
            sha256="d071a4a0fbc19145093b48018321d63c95a3ca240f7675e1bcee5153b0630d6d",
        ),
        _slidesam("B"),
        _slidesam("H"),
        _sam(
            "b",
            375_042_383,
            "01ec64",
            "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
        ),
        _sam(
            "l",
            1_249_524_607,
            "0b3195",
            "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
        ),
        _sam(
            "h",
            2_564_550_879,
            "4b8939",
            "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
        ),
        ModelInfo(
            name="medsam-vit-b",
            title="MedSAM ViT-B, lifted to three slices (authors' Google Drive: choose the file)",
            licence="Apache-2.0",
            source="file",
            file="medsam_vit_b.pth",
            page="https://github.com/bowang-lab/MedSAM",
            kind="medsam",
        ),
    )
}


def model_info(name: str) -> ModelInfo:
    """The entry of a named model; InputError lists the known names."""
    if name not in CATALOGUE:
        raise InputError(f"There is no model named '{name}': known are {', '.join(CATALOGUE)}.")
    return CATALOGUE[name]


def models_folder() -> Path:
    """Where model files are kept: $SLIDESAM_MODELS, else the user's cache folder."""
    chosen = os.environ.get("SLIDESAM_MODELS")
    if chosen:
        return Path(os.path.expanduser(chosen))  # as it is where there is no such user
    home = Path(os.path.expanduser("~"))  # not Path.home, which raises where nobody knows one
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = home / "Library" / "Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or home / ".cache"
    return Path(base) / "slidesam"


def check_unchanged(info: ModelInfo) -> None:
    """Make sure that a model's file is the right one; hashes only what was not checked before.

    Raises
    ------
    ModelError
        The SHA-256 differs from the published one, or from the one of the first use.
    """
    path, records = info.path, _read_records()
    record = records.get(info.file)
    if (
        record is not None
        and record[1:] == _stamp(path)
        and record[0] == (info.sha256 or record[0])
    ):
        return
    actual = file_sha256(path)
    expected = info.sha256 or (record[0] if record is not None else actual)
    if actual != expected:
        first = "published" if info.sha256 else "recorded on its first use"
        raise ModelError(
            f"The file '{path}' is not the one {first} (its SHA-256 differs): remove the model "
            f"'{info.name}' and fetch it again."
        )
    record_hash(info, actual)


def recorded_hash(info: ModelInfo) -> str | None:
    """The SHA-256 that was recorded when the model's file was first used or downloaded."""
    record = _read_records().get(info.file)
    return None if record is None else record[0]


def record_hash(info: ModelInfo, sha256: str | None) -> None:
    """Remember the SHA-256 of a model's file, or forget it (None).

    Where the folder cannot be written, nothing is remembered and the file is hashed at each use.
    """
    records = _read_records()
    if sha256 is None:
        records.pop(info.file, None)
    else:
        records[info.file] = (sha256, *_stamp(info.path))
    target = models_folder() / _RECORDS
    with contextlib.suppress(OSError):
        target.parent.mkdir(parents=True, exist_ok=True)
        with replacing(target) as part:
            part.write_text(json.dumps(records, indent=1))


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _read_records() -> dict[str, tuple[str, int, int]]:
    """File name -> (SHA-256, size, time of change); empty where nothing readable is there."""
    try:
        content = json.loads((models_folder() / _RECORDS).read_text())
        return {str(k): (str(v[0]), int(v[1]), int(v[2])) for k, v in content.items()}
    except (OSError, ValueError, AttributeError, TypeError, IndexError):
        return {}
