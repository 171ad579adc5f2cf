"""The slice views of the layout, and what the effect draws over them."""

from __future__ import annotations

from typing import Any

import slicer
import vtk
from SlideSAMBridge.drawing import slice_views
from SlideSAMBridge.drawing.overlay import Overlay
from SlideSAMBridge.drawing.preview import Preview
from SlideSAMBridge.scene.lattice import Lattice
from SlideSAMBridge.scene.prompt_set import PromptSet

_C = vtk.vtkCommand
# What a person does in the view that is meant. Moves alone say less: on its way to the panel the
# mouse crosses other views.
USES = {
    *(_C.LeftButtonPressEvent, _C.MiddleButtonPressEvent, _C.RightButtonPressEvent),
    *(_C.MouseWheelForwardEvent, _C.MouseWheelBackwardEvent, _C.KeyPressEvent),
    *(_C.MouseWheelLeftEvent, _C.MouseWheelRightEvent),
}
MOVES = {_C.MouseMoveEvent, _C.EnterEvent}


def is_slice_view(view: Any) -> bool:
    return view.className() == "qMRMLSliceWidget"


def slice_node(view: Any) -> Any:
    return view.sliceLogic().GetSliceNode()


def pixel_ratio(view: Any) -> float:
    """Render window pixels per Qt pixel: 2 on many high-density screens.

    Asked of the screen: sizes say it only once Qt has laid out the view.
    """
    return max(1.0, view.sliceView().devicePixelRatioF())


class Views:
    """Overlays by slice node; views that are not in the layout join when they send an event.

    Views that do not show the segmentation, as beside another study, are left alone.

    An effect hears of its views only while it is active: which of them was used with another effect
    cannot be known without observers that would have to stay all the time.
    """

    def __init__(self, effect: Any) -> None:
        self._effect = effect
        self._views: dict[str, Any] = {}
        self._overlays: dict[str, Overlay] = {}
        self._used = self._crossed = ""  # ids of the slice nodes: last of USES, and of MOVES
        self._earlier = ""  # the view in use when the effect was left
        self._drawn: tuple = (None, None)  # the prompts and where their voxels lie, in all views
        self._version = -1  # of the preview in all views

    @property
    def overlays(self) -> list[Overlay]:
        return list(self._overlays.values())

    def find(self) -> None:
        """Take up the slice views of the layout, and those only."""
        self.clear()
        manager = slicer.app.layoutManager()
        if manager is None:
            return
        for name in manager.sliceViewNames():
            view = manager.sliceWidget(name)
            if view is not None:
                self.overlay(view)

    def overlay(self, view: Any) -> Overlay:
        """What is drawn over a view, for the screen that it is on now."""
        name = slice_node(view).GetID()
        if name not in self._overlays:
            self._overlays[name] = Overlay(self._effect.renderer(view))
            self._views[name] = view
            self._drawn = (None, None)  # nothing is drawn in this one
        self._overlays[name].ratio = pixel_ratio(view)
        return self._overlays[name]

    def notice(self, view: Any, event: int) -> None:
        """A view has sent an event: it joins, if it is not in the layout, and may be in use now."""
        if event not in USES and event not in MOVES:
            return
        self.overlay(view)
        if event in USES:
            self._used = slice_node(view).GetID()
        else:
            self._crossed = slice_node(view).GetID()

    def leave(self) -> None:
        """As `clear`; the view in use is remembered as the one of before."""
        self._earlier = self._used or self._crossed or self._earlier
        self._used = self._crossed = ""
        self.clear()

    def in_use(self) -> Any:
        """The slice node of the view that is used since the effect was chosen, or None."""
        return self._first_of((self._used, self._crossed))

    def earlier(self) -> list[Any]:
        """The slice node of the view that was used when the effect was left, if it is there."""
        found = self._first_of((self._earlier,))
        return [] if found is None else [found]

    def _first_of(self, names: tuple[str, ...]) -> Any:
        views = [self._views[name] for name in names if name in self._views]
        return next((slice_node(view) for view in views if self._shows(view)), None)

    def _shows(self, view: Any) -> bool:
        """Whether the segmentation may be shown in a view."""
        return self._effect.segmentationDisplayableInView(slice_node(view))

    def nodes(self) -> list[Any]:
        """The slice nodes of all views, the one in use first, then the one of before."""
        nodes = [slice_node(view) for view in self._views.values() if self._shows(view)]
        first = self.in_use() or next(iter(self.earlier()), None)
        if first is not None:
            nodes.sort(key=lambda node: node.GetID() != first.GetID())
        return nodes

    def current(self) -> Any:
        """The slice node of the view in use, or of any other one, or None."""
        nodes = self.nodes()
        return nodes[0] if nodes else None

    def jump(self, part: Lattice, axis: int, index: int) -> bool:
        """Show a slice in the views of that orientation; whether there is any."""
        found = False
        for node in self.nodes():
            shown = slice_views.shown_slice(node, part)
            if shown is not None and shown[0] == axis:
                slice_views.jump(node, part, axis, index)
                found = True
        return found

    def draw(
        self,
        part: Lattice | None,
        prompts: PromptSet,
        preview: Preview,
        hovered: tuple | None,
    ) -> None:
        """Draw in all views. hovered : (view, number of the mark) or None."""
        self._drawn, self._version = (prompts, _place(part)), preview.version
        for view in self._views.values():
            self.draw_one(view, part, prompts, preview, hovered)

    def update(
        self,
        part: Lattice | None,
        prompts: PromptSet,
        preview: Preview,
        hovered: tuple | None,
    ) -> None:
        """Draw in all views what is other than it was: each finished slice asks for it."""
        drawn, place = self._drawn
        if drawn is not prompts or place != _place(part):
            self.draw(part, prompts, preview, hovered)
        elif self._version != preview.version:
            self._version = preview.version
            for view in self._views.values():
                if self._draw_weak(view, part, preview):
                    self._effect.scheduleRender(view)

    def draw_one(
        self,
        view: Any,
        part: Lattice | None,
        prompts: PromptSet,
        preview: Preview,
        hovered: tuple | None,
    ) -> None:
        """Draw the prompts and the dashed outline of the slice that a view shows."""
        overlay = self.overlay(view)
        had = bool(overlay.actors)
        number = hovered[1] if hovered is not None and hovered[0] == view else None
        if part is None or not len(prompts) or not self._shows(view):
            overlay.clear_marks()
        else:
            overlay.show(slice_node(view), part, prompts, number)
        weak = self._draw_weak(view, part, preview)
        if had or overlay.actors or weak:
            self._effect.scheduleRender(view)

    def _draw_weak(self, view: Any, part: Lattice | None, preview: Preview) -> bool:
        """Draw the dashed outline in one view; whether there was or is one."""
        overlay = self.overlay(view)
        had = overlay.dashes is not None
        if part is None or not self._shows(view):
            overlay.clear_weak()
        else:
            overlay.show_weak(slice_node(view), part, preview)
        return had or overlay.dashes is not None

    def remove_outline(self) -> None:
        """Take the box that is being dragged out of its view, whose widget may be gone."""
        for name, overlay in self._overlays.items():
            if overlay.remove_outline():
                self._render(self._views[name])

    def clear(self) -> None:
        """Take everything out of all views, and let go of them; their widgets may be gone."""
        for name, overlay in self._overlays.items():
            drawn = bool(overlay.actors) or overlay.dashes is not None
            overlay.clear()
            if drawn:
                self._render(self._views[name])
        self._overlays.clear()
        self._views.clear()
        self._drawn, self._version = (None, None), -1

    def _render(self, view: Any) -> None:
        try:
            self._effect.scheduleRender(view)
        except ValueError:  # what PythonQt raises where the widget is gone, as after a new layout
            return


def _place(part: Lattice | None) -> tuple | None:
    """Equal for lattices whose voxels lie at the same places of the world."""
    return None if part is None else (part.extent, part.ijk_to_ras.tobytes())
