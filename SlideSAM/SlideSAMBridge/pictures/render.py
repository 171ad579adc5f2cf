"""Pictures of a segmentation by Slicer's own views, off-screen; needs slicer-core and a GL library.

    python render.py SEGMENTATION OUT.png [--volume IMAGE] [--view A]

SEGMENTATION: .seg.nrrd (names and colours are kept) or a label map that ITK reads (.nii.gz, ...).
The picture shows the smoothed surface of every segment; with --volume, a slice of the image through
the middle of the object goes with it. With --slice it is the slice view instead.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

if __package__ in (None, ""):  # run as a script: the folder of the package is not on the path yet
    sys.path[0] = str(Path(__file__).resolve().parents[2])
from SlideSAMBridge.pictures import offscreen

FILLED = 0.86  # share of the frame that the segments may take up
# Where the camera stands, in RAS: from the patient's right, left, front, back, head, feet.
DIRECTIONS = {
    "R": (1, 0, 0),
    "L": (-1, 0, 0),
    "A": (0, 1, 0),
    "P": (0, -1, 0),
    "S": (0, 0, 1),
    "I": (0, 0, -1),
}
ORIENTATIONS = ("Axial", "Sagittal", "Coronal")
BACKGROUND = (0.07, 0.08, 0.10)
COLOR = (0.90, 0.68, 0.52)
Labels = str | os.PathLike | tuple[np.ndarray, np.ndarray]


def render_surface(
    labels: Labels,
    out_png: str | os.PathLike,
    *,
    volume: str | os.PathLike | None = None,
    plane: str = "Axial",
    color: Sequence[float] | None = None,
    view: str = "ALS",
    size: tuple[int, int] = (900, 700),
    background: Sequence[float] = BACKGROUND,
    smoothing: float = 0.5,
) -> None:
    """Render the surfaces of a segmentation into a PNG file.

    Parameters
    ----------
    labels : path, or (array (K, J, I) of 0 and 1, IJK-to-RAS matrix 4 x 4)
    volume : image file of which one slice is drawn with the surface, or None.
    plane : which slice: "Axial", "Sagittal" or "Coronal", through the middle of the segments.
    color : red, green, blue in 0..1 for every segment; None keeps the colours of the file.
    view : where the camera stands, one to three letters of R L A P S I, for example "ALS".
    smoothing : smoothing of the surfaces, 0..1.

    Raises
    ------
    ValueError
        A file cannot be read, it has no segment, or `view` has other letters.
    RuntimeError
        There is no GL library to draw with.
    """
    direction = view_direction(view)
    session = _start()
    views: list[offscreen.View] = []
    try:
        segmentation = load_segmentation(session, labels, color)
        _make_surfaces(segmentation, smoothing)
        # Twice the size, averaged down: smooth edges without multisampling, which software
        # renderers may lack.
        three_d = offscreen.ThreeDView(session, size=(2 * size[0], 2 * size[1]))
        views.append(three_d)
        if volume is not None:
            node = load_volume(session, volume)
            views.append(_show_plane(session, node, segmentation, plane))
        _light(three_d, background)
        _aim(three_d, segmentation, direction)
        _write_half(three_d.pixels(), out_png)
    finally:
        for shown in views:
            shown.close()
        session.close()


def render_slice(
    labels: Labels,
    volume: str | os.PathLike,
    out_png: str | os.PathLike,
    *,
    orientation: str = "Axial",
    ras: Sequence[float] | None = None,
    color: Sequence[float] | None = None,
    size: tuple[int, int] = (700, 700),
) -> None:
    """Render one slice of an image with the segments on it, as a slice view shows it.

    `ras` is a point in mm on the slice; None takes the middle of the segments. `labels`, `color`
    and the errors are those of `render_surface`.
    """
    session = _start()
    try:
        segmentation = load_segmentation(session, labels, color)
        segmentation.GetDisplayNode().SetOpacity2DFill(0.3)
        segmentation.GetDisplayNode().SetSliceIntersectionThickness(2)
        view = offscreen.SliceView(session, orientation=_known(orientation), size=size)
        try:
            view.show(load_volume(session, volume))
            view.node.JumpSliceByOffsetting(*(middle(segmentation) if ras is None else ras))
            view.save(out_png)
        finally:
            view.close()
    finally:
        session.close()


def view_direction(view: str) -> np.ndarray:
    """Unit vector (R, A, S) from the object to the camera."""
    if not 1 <= len(view) <= 3 or any(letter not in DIRECTIONS for letter in view):
        raise ValueError(f"The view must be one to three letters of R L A P S I, not '{view}'.")
    # The first letter leads; the others tilt the camera.
    weights = (1.0, 0.55, 0.45)
    total = sum(w * np.array(DIRECTIONS[v], float) for v, w in zip(view, weights, strict=False))
    length = np.linalg.norm(total)
    if length < 1e-6:
        raise ValueError(f"The view '{view}' has no direction.")
    return total / length


def load_segmentation(session: Any, labels: Labels, color: Sequence[float] | None = None) -> Any:
    """A segmentation node from a file or from (array, IJK-to-RAS)."""
    node = session.scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Segmentation")
    node.CreateDefaultDisplayNodes()
    if isinstance(labels, tuple):
        _add_array(node, *labels)
    else:
        _read(session, "vtkMRMLSegmentationStorageNode", labels, node, "segmentation")
    segmentation = node.GetSegmentation()
    if segmentation.GetNumberOfSegments() == 0:
        raise ValueError("The segmentation has no segment to draw.")
    for index in range(segmentation.GetNumberOfSegments()):
        if color is not None:
            segmentation.GetNthSegment(index).SetColor(*color)
    return node


def load_volume(session: Any, path: str | os.PathLike) -> Any:
    """A scalar volume node from an image file, shown in its robust grey range."""
    if not Path(path).is_file():
        raise ValueError(f"There is no image '{path}'.")
    node = session.logics["Volumes"].AddArchetypeVolume(os.fspath(path), "Image")
    if node is None:
        raise ValueError(f"'{path}' cannot be read as an image.")
    node.GetDisplayNode().AutoWindowLevelOn()
    return node


def middle(segmentation_node: Any) -> np.ndarray:
    """Centre of the bounds of all segments, world RAS in mm."""
    bounds = np.zeros(6)
    segmentation_node.GetRASBounds(bounds)
    return (bounds[0::2] + bounds[1::2]) / 2


def _start() -> offscreen.Session:
    if not offscreen.use_software_window():
        raise RuntimeError(
            "There is no GL library to draw with: install libegl1, libegl-mesa0, libgl1-mesa-dri."
        )
    return offscreen.start()


def _read(session: Any, storage_class: str, path: Any, node: Any, what: str) -> None:
    if not Path(path).is_file():
        raise ValueError(f"There is no {what} '{path}'.")
    storage = session.scene.AddNewNodeByClass(storage_class)
    storage.SetFileName(os.fspath(path))
    if storage.ReadData(node) != 1:
        raise ValueError(f"'{path}' cannot be read as a {what}.")


def _add_array(node: Any, array: np.ndarray, ijk_to_ras: np.ndarray) -> None:
    import slicer
    import vtk
    from vtk.util.numpy_support import numpy_to_vtk

    mask = np.ascontiguousarray(np.asarray(array) != 0, np.uint8)
    if mask.ndim != 3 or not mask.any():
        raise ValueError("The label array must be 3D with at least one voxel set.")
    depth, height, width = mask.shape
    matrix = vtk.vtkMatrix4x4()
    matrix.DeepCopy(np.asarray(ijk_to_ras, float).ravel().tolist())
    image = slicer.vtkOrientedImageData()
    image.SetExtent(0, width - 1, 0, height - 1, 0, depth - 1)
    image.SetImageToWorldMatrix(matrix)
    image.GetPointData().SetScalars(numpy_to_vtk(mask.ravel(), deep=True))
    segment = slicer.vtkSegment()
    segment.SetName("Segment")
    segment.SetColor(*COLOR)
    segment.AddRepresentation("Binary labelmap", image)
    node.GetSegmentation().AddSegment(segment)


def _make_surfaces(segmentation_node: Any, smoothing: float) -> None:
    segmentation = segmentation_node.GetSegmentation()
    segmentation.SetConversionParameter("Smoothing factor", str(float(smoothing)))
    if not segmentation_node.CreateClosedSurfaceRepresentation():
        raise ValueError("The segments have no surface to draw: they are empty.")
    segmentation_node.GetDisplayNode().SetPreferredDisplayRepresentationName3D("Closed surface")


def _show_plane(
    session: offscreen.Session, volume: Any, segmentation_node: Any, orientation: str
) -> offscreen.SliceView:
    """Put one slice of the image through the middle of the segments into the 3D view."""
    view = offscreen.SliceView(session, "Red", _known(orientation), (512, 512))
    view.show(volume)
    view.node.JumpSliceByOffsetting(*middle(segmentation_node))
    view.node.SetSliceVisible(True)
    return view


def _known(orientation: str) -> str:
    if orientation not in ORIENTATIONS:
        raise ValueError(f"The orientation must be one of {', '.join(ORIENTATIONS)}.")
    return orientation


def _write_half(pixels: np.ndarray, path: str | os.PathLike) -> None:
    """Write uint8 (2h, 2w, 3), bottom row first, as a PNG of (h, w)."""
    import vtk
    from vtk.util.numpy_support import numpy_to_vtk

    height, width = pixels.shape[0] // 2, pixels.shape[1] // 2
    small = pixels.reshape(height, 2, width, 2, -1).mean((1, 3)).round().astype(np.uint8)
    image = vtk.vtkImageData()
    image.SetDimensions(width, height, 1)
    image.GetPointData().SetScalars(numpy_to_vtk(small.reshape(height * width, -1), deep=True))
    writer = vtk.vtkPNGWriter()
    writer.SetFileName(os.fspath(path))
    writer.SetInputData(image)
    writer.Write()
    if writer.GetErrorCode():
        raise ValueError(f"'{path}' cannot be written.")


def _light(view: Any, background: Sequence[float]) -> None:
    import vtk

    view.node.SetBackgroundColor(*background)
    view.node.SetBackgroundColor2(*(min(1.0, 2.2 * c) for c in background))
    view.node.SetBoxVisible(False)
    view.node.SetAxisLabelsVisible(False)
    view.node.SetShadowsVisibility(True)  # ambient shadows deepen the folds
    # A strong key light from the upper left and a weak fill give the surface its shape; the
    # single light at the camera that VTK makes by itself flattens it.
    view.renderer.RemoveAllLights()
    view.renderer.AutomaticLightCreationOff()
    kit = vtk.vtkLightKit()
    kit.SetKeyLightIntensity(0.95)
    kit.SetKeyLightAngle(45, -35)
    kit.SetKeyLightWarmth(0.55)
    kit.SetKeyToFillRatio(3.0)
    kit.SetKeyToHeadRatio(4.0)
    kit.AddLightsToRenderer(view.renderer)


def _aim(view: Any, segmentation_node: Any, direction: np.ndarray) -> None:
    """Put the camera in front of the segments, head up (or front up seen from above)."""
    points = _surface_points(segmentation_node)
    centre = (points.min(0) + points.max(0)) / 2
    up = np.array((0, 0, 1) if abs(direction[2]) < 0.9 else (0, 1, 0))
    right = np.cross(up, direction)
    right /= np.linalg.norm(right)
    offsets = points - centre
    across, upward = np.abs(offsets @ right), np.abs(offsets @ np.cross(direction, right))
    camera = view.renderer.GetActiveCamera()
    camera.SetViewAngle(30)
    slope = FILLED * math.tan(math.radians(camera.GetViewAngle() / 2))
    width, height = view.window.GetSize()
    # Each point must be far enough away to stay inside the frame.
    needed = offsets @ direction + np.maximum(across * height / width, upward) / slope
    camera.SetFocalPoint(*centre)
    camera.SetPosition(*(centre + float(needed.max()) * direction))
    camera.SetViewUp(*up)
    view.renderer.ResetCameraClippingRange()


def _surface_points(segmentation_node: Any) -> np.ndarray:
    """Points of all segments' surfaces in RAS, (N, 3)."""
    from vtk.util.numpy_support import vtk_to_numpy

    segmentation = segmentation_node.GetSegmentation()
    surfaces = [
        segmentation_node.GetClosedSurfaceInternalRepresentation(segmentation.GetNthSegmentID(n))
        for n in range(segmentation.GetNumberOfSegments())
    ]
    points = [
        vtk_to_numpy(surface.GetPoints().GetData())
        for surface in surfaces
        if surface is not None and surface.GetNumberOfPoints()
    ]
    return np.concatenate(points)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="render.py", description=__doc__.splitlines()[0])
    parser.add_argument("segmentation", help="segmentation or label map file")
    parser.add_argument("output", help="PNG file to write")
    parser.add_argument("--volume", help="image file shown with the segments")
    parser.add_argument("--plane", choices=ORIENTATIONS, default="Axial", help="slice of the image")
    parser.add_argument("--view", default="ALS", help="camera side, letters of R L A P S I")
    parser.add_argument("--color", type=float, nargs=3, metavar=("R", "G", "B"), help="0..1 each")
    parser.add_argument("--size", type=int, nargs=2, default=(900, 700), metavar=("W", "H"))
    parser.add_argument("--background", type=float, nargs=3, default=BACKGROUND)
    parser.add_argument("--smoothing", type=float, default=0.5, help="0..1")
    parser.add_argument("--slice", choices=ORIENTATIONS, help="draw this slice, not the surface")
    parser.add_argument("--ras", type=float, nargs=3, help="a point on the slice, mm")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line of this file: 0, or 2 with one line on stderr."""
    options = _arguments(argv)
    size = tuple(options.size)
    try:
        if options.slice:
            if not options.volume:
                raise ValueError("--slice needs an image: add --volume FILE.")
            render_slice(
                options.segmentation,
                options.volume,
                options.output,
                orientation=options.slice,
                ras=options.ras,
                color=options.color,
                size=size,
            )
        else:
            render_surface(
                options.segmentation,
                options.output,
                volume=options.volume,
                plane=options.plane,
                color=options.color,
                view=options.view,
                size=size,
                background=options.background,
                smoothing=options.smoothing,
            )
    except (ValueError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
