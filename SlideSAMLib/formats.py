"""The file formats that label maps are written in. A module of its own: it needs no SimpleITK."""

OUTPUT_SUFFIXES = (".seg.nrrd", ".nii.gz", ".nii", ".nrrd", ".mha")
