"""A data set of whole structures, made of labels that cut them into parts.

    python Testing/Benchmarks/whole_structures.py MANIFEST FOLDER
    slidesam evaluate FOLDER/manifest.json --prompt box --protocol both --limit 0 --output OUT

A box around the white matter of a hemisphere is a box around the hemisphere, too; labels say the
one, most users would mean the other. Labels whose names fit a pattern of `WHOLES` become one
structure of that name, all others background; cases without such labels are left out. The images
stay where they are.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

# Names of whole structures, and what all names of their parts look like; no label fits two.
WHOLES = {
    "left cerebellum": "left cerebellum .*",
    "right cerebellum": "right cerebellum .*",
    "left hemisphere": "left (?!cerebellum|vessel).*",
    "right hemisphere": "right (?!cerebellum|vessel).*",
    "hippocampus": "(anterior|posterior) hippocampus",
    "aorta with both lumina": "aorta (true|false) lumen",
    "left lung": "lung_(upper|lower)_lobe_left",
    "spine": "vertebrae.*|sacrum|intervertebral_discs",
    "left gluteal muscles": "gluteus_.*_left",
    "right gluteal muscles": "gluteus_.*_right",
}


def parts(names: dict[int, str]) -> dict[str, list[int]]:
    """Whole structure -> label values of its parts; those with at least two parts."""
    found = {
        whole: [value for value, name in names.items() if re.fullmatch(pattern, name)]
        for whole, pattern in WHOLES.items()
    }
    return {whole: values for whole, values in found.items() if len(values) > 1}


def write(manifest: Path, folder: Path) -> int:
    """Write the label maps and their manifest; returns the number of cases. Nothing where it is 0.

    Raises InputError where the manifest or a label map cannot be read, or the folder is no place
    to write to.
    """
    import numpy as np
    import SimpleITK as sitk

    from SlideSAMLib.errors import InputError
    from SlideSAMLib.evaluation.cases import read_manifest
    from SlideSAMLib.images.volumes import read_image

    known = [(case, parts(case.names)) for case in read_manifest(manifest, verify=False)]
    if manifest.resolve().parent == folder.resolve():
        raise InputError(f"The folder {folder} holds the manifest itself: give another one.")
    known = [(case, wholes) for case, wholes in known if wholes]
    if not known:
        return 0
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"The folder {folder} cannot be made: {error.strerror}.") from None
    cases = []
    for case, wholes in known:
        labels = read_image(case.label, allow_labels=True)
        joined = np.zeros(labels.array.shape, np.uint8)
        for value, members in enumerate(wholes.values(), 1):
            joined[np.isin(labels.array, members)] = value
        image = sitk.GetImageFromArray(joined)
        labels.geometry.apply(image)
        label = folder / f"{case.id}_wholes.nii.gz"
        sitk.WriteImage(image, str(label), True)
        described = [{"value": v, "name": name} for v, name in enumerate(wholes, 1)]
        where = os.path.relpath(case.image, folder)
        cases.append({"id": case.id, "image": where, "label": label.name, "labels": described})
    (folder / "manifest.json").write_text(json.dumps({"cases": cases}, indent=1))
    return len(cases)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("manifest", type=Path)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    from SlideSAMLib.errors import SlideSAMError

    try:
        count = write(options.manifest, options.folder)
    except SlideSAMError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    where = f" in {options.folder / 'manifest.json'}" if count else ": nothing is written"
    print(f"{count} cases with parts of whole structures{where}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
