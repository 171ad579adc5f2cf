"""Real files: Slicer's way and the library's way give the same voxels."""

import numpy as np
import pytest
import SimpleITK as sitk
import slicer

pytestmark = [pytest.mark.slicer, pytest.mark.data]
CASE = "ct_abdomen_pelvis"
KIDNEY = 2
BODY = -300  # HU; the model without weights finds the whole body around the kidney


@pytest.fixture
def case(data_folder):
    """Image file, image as ITK reads it, and the voxel (i, j, k) deep in the right kidney."""
    path = data_folder / f"{CASE}_image.nii.gz"
    label = sitk.GetArrayFromImage(sitk.ReadImage(str(data_folder / f"{CASE}_label.nii.gz")))
    index = int((label == KIDNEY).sum((1, 2)).argmax())
    distance = sitk.GetArrayFromImage(
        sitk.SignedMaurerDistanceMap(
            sitk.GetImageFromArray((label[index] == KIDNEY).astype(np.uint8)),
            insideIsPositive=True,
            squaredDistance=False,
        )
    )
    j, i = np.unravel_index(distance.argmax(), distance.shape)
    return path, sitk.ReadImage(str(path)), (int(i), int(j), index)


def test_a_scan_is_segmented_alike_in_slicer_and_outside(session, slidesam, case):
    from SlideSAMBridge.scene import editing, lattice

    import SlideSAMLib
    from Testing.fakes import ThresholdModel

    path, image, (i, j, k) = case
    expected = SlideSAMLib.segment(
        sitk.GetArrayFromImage(image),
        SlideSAMLib.SlicePrompt(index=k, points=[(i, j)]),
        spacing=image.GetSpacing()[::-1],  # (I, J, K) to (K, J, I)
        axis=0,
        first=k - 6,
        last=k + 9,
        model=ThresholdModel(threshold=BODY),
    )
    assert sorted(expected.confidence) == list(range(k - 6, k + 10))
    volume = session.logics["Volumes"].AddArchetypeVolume(str(path), "CT")
    segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    left, posterior, superior = image.TransformIndexToPhysicalPoint((i, j, k))  # ITK is LPS
    logic = slidesam.SlideSAMLogic()
    segment = logic.segment(
        volume,
        segmentation,
        points=[[-left, -posterior, superior]],
        orientation="Axial",
        first=k - 6,
        last=k + 9,
        model=ThresholdModel(threshold=BODY),
    )
    found = editing.segment_mask(segmentation, segment, lattice.of_volume(volume))
    assert np.array_equal(found, expected.mask)
    assert logic.lastResult.confidence == expected.confidence


def test_files_of_the_command_line_open_in_slicer(session, case, tmp_path):
    """A .seg.nrrd written without Slicer lies on the same voxels of the same image."""
    from SlideSAMBridge.scene import editing, lattice

    from SlideSAMLib.images import volumes

    path, image, _ = case
    mask = sitk.GetArrayFromImage(image) > 120
    volumes.write_mask(mask, volumes.Geometry.of(image), tmp_path / "bone.seg.nrrd")
    volume = session.logics["Volumes"].AddArchetypeVolume(str(path), "CT")
    segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    storage = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationStorageNode")
    storage.SetFileName(str(tmp_path / "bone.seg.nrrd"))
    assert storage.ReadData(segmentation) == 1
    (segment,) = segmentation.GetSegmentation().GetSegmentIDs()
    assert segmentation.GetSegmentation().GetSegment(segment).GetName() == "bone"
    labels = segmentation.GetBinaryLabelmapInternalRepresentation(segment)
    grid, stored = lattice.of_volume(volume), lattice.of_image(labels, segmentation)
    assert np.allclose(stored.ijk_to_ras, grid.ijk_to_ras, atol=1e-4)
    assert np.array_equal(editing.segment_mask(segmentation, segment, grid), mask)
