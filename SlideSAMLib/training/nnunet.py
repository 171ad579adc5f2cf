"""The training cases of nnU-Net dataset folders, in version 2 of the format."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from math import isfinite
from pathlib import Path

from ..errors import InputError
from ..evaluation.cases import Case
from ..images.tiff import says_spacing

DEFAULT_ENDING = ".nii.gz"
IGNORE = "ignore"  # nnU-Net's reserved name for the voxels that nobody has labelled
TIFF = (".tif", ".tiff")
CHANNEL = len("_0000")  # what follows the name of a case in the name of an image
IMAGE = re.compile(r"(?P<case>[^.].*)_\d{4}\.")  # hidden files, which macOS makes, are none
# What a file that cannot be used comes to.
BROKEN = (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)
Files = Iterator[tuple[str, Path, Path]]  # names of cases, their images and labels
Regions = dict[str, tuple[int, ...]]


def read_nnunet(folder: Path, channel: int = 0) -> list[Case]:
    """The training cases of an nnU-Net dataset folder.

    The layout is that of nnU-Net v2: dataset.json with `labels` and `file_ending`,
    imagesTr/CASE_0000.nii.gz (one file a channel) and labelsTr/CASE.nii.gz, or the files that
    `dataset` lists instead. Labels that are lists of values are the regions of the cases; they
    also name those of their values that have no name of their own. The label `ignore` is no
    structure: it fills the voxels that nobody has labelled.

    Raises InputError where something of this is missing.
    """
    try:
        content = _json(folder / "dataset.json")
        names, regions, ignored = _label_names(content["labels"])
        ending = str(content.get("file_ending", DEFAULT_ENDING))
        if set(ending) & set("/\\*?["):  # it would be a pattern, or lead elsewhere
            raise ValueError(f"its file_ending {ending!r} is no ending of a name")
        listed = content.get("dataset")
    except BROKEN as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(
            f"{folder} is no nnU-Net data set: dataset.json cannot be read ({reason})."
        ) from None
    if listed is None:
        files = _in_folder(folder, ending, channel)
    else:
        files = _listed(folder, listed, channel)
    cases = [
        Case(
            name,
            image,
            label,
            names,
            regions=regions,
            unlabelled=ignored,
            spacing=_spacing(image, label),
        )
        for name, image, label in files
    ]
    if not cases:
        missing = f"labels *{ending} in labelsTr" if listed is None else "cases in its `dataset`"
        raise InputError(f"The folder {folder} has no {missing}.")
    return cases


def without_label(folder: Path, cases: Sequence[Case]) -> list[str]:
    """Names of the images in imagesTr that are no cases, since nobody has labelled them."""
    if _json(folder / "dataset.json").get("dataset") is not None:
        return []  # it lists the files itself
    images = (IMAGE.match(file.name) for file in (folder / "imagesTr").glob("*_????.*"))
    return sorted({found["case"] for found in images if found} - {case.id for case in cases})


def _json(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8-sig"))


def _label_names(labels: dict) -> tuple[dict[int, str], Regions, int | None]:
    """Label value -> name, region -> values, and the value that is to be ignored, or None.

    Version 1 of the format has names as values.
    """
    if all(str(key).isdecimal() for key in labels):
        labels = {name: int(value) for value, name in labels.items()}
    ignored = labels.get(IGNORE)
    labels = {name: value for name, value in labels.items() if name != IGNORE}
    names: dict[int, str] = {}
    regions = {
        str(name): tuple(int(value) for value in values)
        for name, values in labels.items()
        if isinstance(values, (list, tuple))
    }
    for name, value in labels.items():
        if str(name) not in regions and int(value) > 0:
            names[int(value)] = str(name)
    for name, values in regions.items():
        for value in values:
            names.setdefault(value, name)
    return names, regions, None if ignored is None else int(ignored)


def _in_folder(folder: Path, ending: str, channel: int) -> Files:
    """The files of imagesTr and labelsTr, but for hidden ones, which macOS puts beside others."""
    for label in sorted((folder / "labelsTr").glob(f"*{ending}")):
        if label.name.startswith("."):
            continue
        name = label.name[: -len(ending)]
        image = folder / "imagesTr" / f"{name}_{channel:04d}{ending}"
        if not image.is_file():
            raise InputError(f"The case {name} of {folder} has no image {image.name} in imagesTr.")
        yield name, image, label


def _listed(folder: Path, listed: dict, channel: int) -> Files:
    """The files that `dataset` lists: paths as they are or relative to the folder."""
    try:
        found = [
            (str(name), [str(image) for image in files["images"]], str(files["label"]))
            for name, files in listed.items()
        ]
        if any(isinstance(files["images"], str) for files in listed.values()):
            raise TypeError
    except BROKEN:
        raise InputError(
            f"The `dataset` in dataset.json of {folder} must give each case its `images`, a list, "
            "and its `label`."
        ) from None
    for name, images, label in found:
        if not 0 <= channel < len(images):
            raise InputError(f"The case {name} of {folder} has no image of the channel {channel}.")
        # Environment variables stand for their values, as in nnU-Net.
        paths = [folder / os.path.expandvars(path) for path in (images[channel], label)]
        for path in paths:
            if not path.is_file():
                raise InputError(f"The case {name} of {folder}: the file {path} is missing.")
        yield name, *paths


def _spacing(image: Path, label: Path) -> tuple[float, float, float] | None:
    """(sk, sj, si) in mm of a TIFF file, from the JSON file beside the image or its labels.

    None where the file itself says it, as files of other formats do.
    """
    if image.suffix.lower() not in TIFF:
        return None
    beside = image.with_name(f"{image.stem[:-CHANNEL]}.json")
    file = next((file for file in (beside, label.with_suffix(".json")) if file.is_file()), None)
    if file is None:
        if says_spacing(image):
            return None
        raise InputError(
            f"The image {image} does not say its spacing: write it into {beside}, as "
            '{"spacing": [Z, Y, X]} in mm.'
        )
    try:
        slices, rows, columns = (float(s) for s in _json(file)["spacing"])
    except BROKEN as error:
        raise InputError(f"The spacing in {file} cannot be read ({error}).") from None
    if not all(isfinite(size) and size > 0 for size in (slices, rows, columns)):
        raise InputError(f"The spacing in {file} must be three positive numbers in mm.")
    return slices, rows, columns
