"""Every voxel in its place: axes, geometries, transforms, oversampling, orientations."""

import itertools

import numpy as np
import pytest
import slicer

from Testing.slicer import scenes
from Testing.slicer.scenes import GEOMETRIES, MIDDLE, Scene

pytestmark = pytest.mark.slicer

TRANSFORMS = [(), ("segmentation",), ("volume",), ("volume", "segmentation")]


@pytest.fixture
def library_calls(monkeypatch):
    """The arguments of every call of SlideSAMLib.segment, which still does its work."""
    import SlideSAMLib

    calls, original = [], SlideSAMLib.segment

    def record(volume, prompts, **options):
        calls.append({"volume": volume.copy(), "prompts": prompts, **options})
        return original(volume, prompts, **options)

    monkeypatch.setattr(SlideSAMLib, "segment", record)
    return calls


CASES = list(itertools.product(GEOMETRIES, TRANSFORMS))


@pytest.mark.parametrize(("geometry", "transforms"), CASES)
def test_voxels_are_exact(session, slidesam, geometry, transforms):
    scene = Scene(GEOMETRIES[geometry], transforms)
    logic = slidesam.SlideSAMLogic()
    for axis in "IJK":
        segment = logic.segment(
            scene.volume,
            scene.segmentation,
            points=[scene.ras()],
            orientation=axis,
            model=scenes.model(),
        )
        assert np.array_equal(scene.mask(segment), scene.truth), axis


@pytest.mark.parametrize(
    ("geometry", "transforms"),
    [
        ("identity", ()),
        ("negative spacing", ("segmentation",)),
        ("oblique", ("volume",)),
        ("left-handed", ("volume", "segmentation")),
        ("anisotropic", ("segmentation",)),
    ],
)
def test_oversampled_voxels_are_exact(session, slidesam, geometry, transforms):
    scene = Scene(GEOMETRIES[geometry], transforms, oversampling=2)
    expected = scenes.sorted_rows(scenes.fine_truth(scene, 2))
    logic = slidesam.SlideSAMLogic()
    for axis in "IJK":
        segment = logic.segment(
            scene.volume,
            scene.segmentation,
            points=[scene.ras()],
            orientation=axis,
            model=scenes.model(),
        )
        found = scenes.sorted_rows(scene.found(segment))
        assert found.shape == expected.shape, axis
        assert np.allclose(found, expected, atol=1e-4), axis


def test_segmentation_on_a_lattice_of_its_own(session, slidesam):
    """A turned, coarser segmentation: its voxels read the volume where they really are."""
    smooth = np.exp(
        -sum(
            ((g - c) / w) ** 2
            for g, c, w in zip(
                np.meshgrid(*map(np.arange, scenes.SHAPE), indexing="ij"),
                (6, 7, 9),
                (3, 4, 5),
                strict=True,
            )
        )
    )
    scene = Scene(GEOMETRIES["identity"], ("volume",), image=(1000 * smooth).astype(np.float32))
    other = slicer.util.addVolumeFromArray(
        np.zeros((20, 24, 22), np.int16),
        ijkToRAS=GEOMETRIES["oblique"] @ scenes.affine(np.diag([1.2, 1.1, 0.6]), (-1, -9, -12)),
    )
    centre = np.array(scene.ras((9, 7, 6)))
    matrix = scenes.affine(GEOMETRIES["oblique"][:3, :3] * [1.2, 1.1, 0.6])
    matrix[:3, 3] = centre - matrix[:3, :3] @ [11, 12, 10]
    other.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(matrix))
    scene.segmentation.SetReferenceImageGeometryParameterFromVolumeNode(other)
    segment = slidesam.SlideSAMLogic().segment(
        scene.volume,
        scene.segmentation,
        points=[centre.tolist()],
        orientation="K",
        model=scenes.model(threshold=500),
        window=(0, 1000),
    )
    grid = np.stack(np.meshgrid(*map(np.arange, (22, 24, 20)), indexing="ij"), -1).reshape(-1, 3)
    volume = np.linalg.inv(scenes.to_world(scene.volume)) @ matrix
    inside = (np.c_[grid, np.ones(len(grid))] @ volume.T)[:, :3]
    values = scenes.interpolated(scene.image, inside)
    expected = scenes.sorted_rows(inside[values > 500])
    assert np.abs(values - 500).min() > 1e-2  # nothing hangs on a rounding error
    assert np.allclose(scenes.sorted_rows(scene.found(segment)), expected, atol=1e-3)


def test_segments_below_zero_enlarge_the_lattice(session, slidesam):
    """Labels outside the volume make the extent start below zero; the new voxels stay exact."""
    scene = Scene(oversampling=1)
    outside = slicer.vtkOrientedImageData()
    outside.SetExtent(-4, 2, -3, 0, -2, 1)
    outside.SetImageToWorldMatrix(slicer.util.vtkMatrixFromArray(scene.ijk_to_ras))
    outside.AllocateScalars(3, 1)  # VTK_UNSIGNED_CHAR
    outside.GetPointData().GetScalars().Fill(1)
    old = slicer.vtkSegment()
    old.SetName("Old")
    old.AddRepresentation("Binary labelmap", outside)
    scene.contents.AddSegment(old, "Old")
    for axis in "IJK":
        segment = slidesam.SlideSAMLogic().segment(
            scene.volume,
            scene.segmentation,
            points=[scene.ras()],
            orientation=axis,
            model=scenes.model(),
        )
        assert np.array_equal(scene.mask(segment), scene.truth)
        assert len(scene.found("Old")) == 7 * 4 * 4


def test_the_model_sees_image_only(session, slidesam, library_calls):
    """Where labels stick out of the volume, the lattice has filler; the model gets none of it."""
    scene = Scene(oversampling=1)
    larger = np.pad(scene.image, 3)
    matrix = scene.ijk_to_ras @ scenes.affine(np.eye(3), (-3, -3, -3))
    other = slicer.util.addVolumeFromArray(larger, ijkToRAS=matrix)
    scene.segmentation.SetReferenceImageGeometryParameterFromVolumeNode(other)
    segment = slidesam.SlideSAMLogic().segment(
        scene.volume, scene.segmentation, points=[scene.ras()], model=scenes.model()
    )
    assert np.array_equal(library_calls[0]["volume"], scene.image)
    assert np.array_equal(scene.mask(segment), scene.truth)


def test_slices_count_along_the_lattice(session, slidesam):
    """A geometry that starts at other indices: limits, progress and saved prompts use them."""
    scene = Scene(scenes.GEOMETRIES["identity"])
    # Rows of the matrix, then the extent: slices 2 to 10 of the volume, counted from 102.
    matrix = scenes.affine(np.eye(3), (0, 0, -100)).ravel()
    numbers = [*matrix, 0, 19, 0, 15, 102, 110]
    scene.contents.SetConversionParameter(
        "Reference image geometry", ";".join(f"{n:g}" for n in numbers) + ";"
    )
    logic, seen = slidesam.SlideSAMLogic(), []
    segment = logic.segment(
        scene.volume,
        scene.segmentation,
        points=[scene.ras((9, 7, 6))],
        first=104,
        last=107,
        model=scenes.model(),
        progress=lambda done, total, finished: seen.append(finished.index),
    )
    assert sorted(set(seen)) == [104, 105, 106, 107]
    assert logic.prompts(scene.segmentation, segment).points == ((9, 7, 106),)
    expected = scene.truth.copy()
    expected[[*range(0, 4), *range(8, 12)]] = False
    assert np.array_equal(scene.mask(segment), expected)


def test_the_models_volume_is_a_copy(session):
    """An edit with an intensity range refills the image of the logic while the model works."""
    from SlideSAMBridge.scene import editing

    scene = Scene(oversampling=1)
    editor = editing.Editor.private(session.scene, session.app_logic)
    editor.point_at(scene.segmentation, scene.volume)
    assert editor.logic.UpdateAlignedSourceVolume()
    volume, part = editor.source()
    assert part.extent == (0, 19, 0, 15, 0, 11)
    image = editing.image_array(editor.logic.GetAlignedSourceVolume())
    assert np.array_equal(volume, image) and not np.shares_memory(volume, image)
    assert not np.shares_memory(volume, slicer.util.arrayFromVolume(scene.volume))


def test_points_and_box_on_several_slices(session, slidesam):
    scene = Scene(GEOMETRIES["oblique"])
    model = scenes.model()
    segment = slidesam.SlideSAMLogic().segment(
        scene.volume,
        scene.segmentation,
        points=[scene.ras((9, 7, 4)), scene.ras((15, 5, 8)), scene.ras((1, 1, 8))],
        labels=[1, 1, 0],
        box=[scene.ras((17, 12, 6)), scene.ras((4, 3, 6))],
        orientation="K",
        model=model,
    )
    asked = {centre: prompt for centre, prompt in model.predicted if prompt.points or prompt.box}
    assert asked[4].points == ((9.0, 7.0),)
    assert asked[8].points == ((15.0, 5.0), (1.0, 1.0)) and asked[8].labels == (1, 0)
    assert any(c == 6 and p.box == (4.0, 3.0, 17.0, 12.0) for c, p in model.predicted)
    assert np.array_equal(scene.mask(segment), scene.truth)


@pytest.mark.parametrize(
    ("axis", "slices", "point", "box"),
    [
        ("I", 9, (7, 6), (3, 2, 12, 8)),  # columns j, rows k
        ("J", 7, (9, 6), (4, 2, 17, 8)),  # columns i, rows k
        ("K", 6, (9, 7), (4, 3, 17, 12)),  # columns i, rows j
    ],
)
def test_columns_and_rows(session, slidesam, library_calls, axis, slices, point, box):
    scene = Scene(GEOMETRIES["left-handed"])
    corners = np.array([(4, 12, 2), (17, 3, 8)])
    corners[:, "IJK".index(axis)] = slices
    slidesam.SlideSAMLogic().segment(
        scene.volume,
        scene.segmentation,
        points=[scene.ras((9, 7, 6))],
        box=[scene.ras(corner) for corner in corners],
        orientation=axis,
        model=scenes.model(),
    )
    (prompt,) = library_calls[0]["prompts"]
    assert (prompt.index, prompt.points, prompt.box) == (slices, (point,), box)
    assert scene.image.take(slices, library_calls[0]["axis"])[point[::-1]] == scenes.INSIDE


@pytest.mark.parametrize("slices", [1, 2])
def test_thin_volumes(session, slidesam, slices):
    image = np.zeros((slices, 16, 20), np.int16)
    image[:, 4:10, 5:14] = scenes.INSIDE
    scene = Scene(image=image)
    for axis in "IJK":
        segment = slidesam.SlideSAMLogic().segment(
            scene.volume,
            scene.segmentation,
            points=[scene.ras((8, 6, 0))],
            orientation=axis,
            model=scenes.model(),
        )
        assert len(scene.found(segment)) == 6 * 9 * slices


def test_limits_are_lattice_slices(session, slidesam):
    scene = Scene()
    segment = slidesam.SlideSAMLogic().segment(
        scene.volume,
        scene.segmentation,
        points=[scene.ras()],
        first=5,
        last=7,
        model=scenes.model(),
    )
    assert np.array_equal(np.flatnonzero(scene.mask(segment).any((1, 2))), [5, 6, 7])


def test_spacing_and_axis_reach_the_library(session, slidesam, library_calls):
    scene = Scene(GEOMETRIES["oblique"], ("volume",))
    slidesam.SlideSAMLogic().segment(
        scene.volume,
        scene.segmentation,
        points=[scene.ras()],
        orientation="J",
        model=scenes.model(),
    )
    assert np.allclose(library_calls[0]["spacing"], (2.0, 0.9, 0.8))
    assert library_calls[0]["axis"] == 1


@pytest.mark.parametrize(
    ("geometry", "expected"),
    [
        ("identity", {"Sagittal": 0, "Coronal": 1, "Axial": 2}),
        ("oblique", {"Sagittal": 0, "Coronal": 1, "Axial": 2}),
        ("left-handed", {"Sagittal": 0, "Coronal": 1, "Axial": 2}),
        ("sheared", {"Sagittal": 0, "Coronal": 1, "Axial": 2}),
        ("sagittal scan", {"Sagittal": 2, "Coronal": 0, "Axial": 1}),
    ],
)
def test_orientation_names_take_the_nearest_axis(session, geometry, expected):
    from SlideSAMBridge.scene import lattice, orientation

    grid = lattice.of_volume(Scene(GEOMETRIES[geometry]).volume)
    assert {name: orientation.slide_axis(name, grid) for name in expected} == expected


def test_orientation_half_way_is_refused(session):
    from SlideSAMBridge.scene import lattice, orientation

    half = np.sqrt(0.5)
    turned = scenes.affine([[1, 0, 0], [0, half, -half], [0, half, half]])
    grid = lattice.of_volume(Scene(turned).volume)
    assert orientation.slide_axis("Sagittal", grid) == 0
    with pytest.raises(ValueError, match=r"orientation='[JK]' or '[JK]'"):
        orientation.slide_axis("Axial", grid)


@pytest.mark.parametrize("geometry", ["oblique", "sheared"])
def test_slice_view_gives_the_axis_it_shows(session, geometry):
    from SlideSAMBridge.scene import lattice, orientation

    scene = Scene(GEOMETRIES[geometry], ("volume",))
    grid = lattice.of_volume(scene.volume)
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSliceNode")
    i, j, k = (scenes.to_world(scene.volume) @ scene.ijk_to_ras)[:3, :3].T
    normals = [np.cross(j, k), np.cross(k, i), np.cross(i, j)]  # of the planes, not of the axes
    normals = [normal / np.linalg.norm(normal) for normal in normals]
    for axis in range(3):
        # A view in the plane of the other two axes, whatever its own x and y are.
        x = np.cross(normals[axis], [0.3, 0.5, 0.8])
        x /= np.linalg.norm(x)
        view = scenes.affine(np.stack([x, np.cross(normals[axis], x), normals[axis]], axis=1))
        node.GetSliceToRAS().DeepCopy(slicer.util.vtkMatrixFromArray(view))
        assert orientation.slide_axis(node, grid) == axis


def test_oblique_slice_view_is_refused_until_it_is_turned(session, slidesam):
    scene = Scene(GEOMETRIES["oblique"])
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSliceNode")
    node.SetOrientation("Axial")
    call = {"points": [scene.ras()], "orientation": node, "model": scenes.model()}
    logic = slidesam.SlideSAMLogic()
    with pytest.raises(ValueError, match="RotateToVolumePlane"):
        logic.segment(scene.volume, scene.segmentation, **call)
    node.RotateToVolumePlane(scene.volume)
    segment = logic.segment(scene.volume, scene.segmentation, **call)
    assert np.array_equal(scene.mask(segment), scene.truth)


def test_rounding_and_inside(session):
    from SlideSAMBridge.scene import lattice

    scene = Scene(GEOMETRIES["oblique"])
    grid = lattice.of_volume(scene.volume)
    for position, voxel, inside in (
        (-1.4, -1, False),
        (-0.6, -1, False),
        (-0.4, 0, True),
        (0.5, 1, True),
        (19.4, 19, True),
        (19.6, 20, False),
    ):
        found = grid.voxel(scene.ras((position, MIDDLE[1], MIDDLE[2])))
        assert found.tolist() == [voxel, MIDDLE[1], MIDDLE[2]]
        assert grid.contains(found) is inside


def test_half_way_between_two_voxels_is_in_the_upper_one(session):
    """Also where a matrix and its inverse miss the half by a rounding error."""
    from SlideSAMBridge.scene import lattice

    grid = lattice.of_volume(Scene(GEOMETRIES["oblique"]).volume)
    for axis, below in itertools.product(range(3), range(-3, 12)):
        ijk = np.array([9.0, 7.0, 6.0])
        ijk[axis] = below + 0.5
        upper = np.floor(ijk + 0.5).astype(int).tolist()
        local = grid.local(ijk)
        assert grid.voxel(local).tolist() == upper  # under no transform, local is RAS
        assert grid.voxel_of_local(local).tolist() == upper


def test_an_emptied_segmentation_of_surfaces_gets_labels(session, slidesam):
    """Where nothing is found it is one of surfaces as before."""
    scene = Scene()
    scene.contents.SetSourceRepresentationName("Closed surface")
    logic = slidesam.SlideSAMLogic()
    with pytest.raises(RuntimeError, match="Nothing was found"):
        logic.segment(
            scene.volume, scene.segmentation, points=[scene.ras((1, 1, 1))], model=scenes.model()
        )
    assert scene.contents.GetSourceRepresentationName() == "Closed surface"
    segment = logic.segment(
        scene.volume, scene.segmentation, points=[scene.ras()], model=scenes.model()
    )
    assert scene.contents.GetSourceRepresentationName() == "Binary labelmap"
    assert np.array_equal(scene.mask(segment), scene.truth)
