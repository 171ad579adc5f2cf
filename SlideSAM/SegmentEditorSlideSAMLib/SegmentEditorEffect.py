"""The Slide-SAM effect of the Segment Editor: events and buttons; the work is in SlideSAMBridge.

Slicer executes this file alone, once per editor widget: no relative imports, nothing expensive.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import qt
import vtk
from SegmentEditorEffects import AbstractScriptedSegmentEditorEffect
from slicer.i18n import tr as _
from SlideSAMBridge.effect.interaction import Interaction
from SlideSAMBridge.effect.scene_watch import SceneWatch
from SlideSAMBridge.setup import library, preferences
from SlideSAMEffect import models_list, parameters, reloading, views
from SlideSAMEffect.gesture import Box, Click, Gesture
from SlideSAMEffect.help_text import help_text
from SlideSAMEffect.panel import Panel
from SlideSAMEffect.pump import Pump
from SlideSAMEffect.shortcuts import NEXT_CANDIDATE, WEAKEST, Shortcuts
from SlideSAMEffect.strip import state_of

REACH = 12  # how near to a prompt the mouse has to be, in Qt pixels


class SegmentEditorEffect(AbstractScriptedSegmentEditorEffect):
    """One object per editor widget, plus the prototype that is never shown."""

    def __init__(self, scriptedEffect: Any) -> None:
        scriptedEffect.name = "Slide-SAM"  # the prefix of all parameters; never translated
        scriptedEffect.title = _("Slide-SAM")
        AbstractScriptedSegmentEditorEffect.__init__(self, scriptedEffect)
        self.interaction = Interaction(scriptedEffect, self.onChange)
        self.watch = SceneWatch(self.interaction, self.redraw)
        self.views = views.Views(scriptedEffect)
        self.gesture = Gesture()
        self.pump = Pump(self.interaction, scriptedEffect.optionsFrame())
        self.shortcuts = Shortcuts({NEXT_CANDIDATE: self.onNextCandidate, WEAKEST: self.onWeakest})
        self.panel: Panel | None = None
        self.isActive = False
        self._hovered: tuple[Any, int] | None = None  # (view, number of the prompt)
        self._doubleClicked = False
        reloading.effects.add(self)

    def clone(self) -> Any:
        import qSlicerSegmentationsEditorEffectsPythonQt as effects

        clonedEffect = effects.qSlicerSegmentEditorScriptedEffect(None)
        clonedEffect.setPythonSource(__file__.replace("\\", "/"))
        return clonedEffect

    def icon(self) -> Any:
        path = Path(__file__).resolve().parents[1] / "Resources" / "Icons" / "SlideSAM.png"
        return qt.QIcon(str(path)) if path.is_file() else qt.QIcon()

    def createCursor(self, viewWidget: Any) -> Any:
        """A cross: Slicer's own cursor shows the whole icon, over the place to click at."""
        return qt.QCursor(qt.Qt.CrossCursor)

    def helpText(self) -> str:
        return help_text()

    # Options

    def setupOptionsFrame(self) -> None:
        actions = {
            "rotate": self.onRotate,
            "existing": self.onExisting,
            "candidate": self.onNextCandidate,
            "clear": self.onClear,
            "segment": self.onSegment,
            "cancel": self.interaction.cancel,
            "apply": self.onApply,
            "discard": self.interaction.discard,
            "weakest": self.onWeakest,
            "changed": self.updateMRMLFromGUI,
        }
        self.panel = Panel(self.scriptedEffect, actions, self.jumpTo)
        self.onChange()

    def setMRMLDefaults(self) -> None:
        self.interaction.waiting.prune()  # a new node, as after the scene was closed
        parameters.set_defaults(self.scriptedEffect)

    def updateGUIFromMRML(self) -> None:
        if self.panel is None or self.scriptedEffect.parameterSetNode() is None:
            return
        options = self.interaction.options = parameters.read(self.scriptedEffect)
        limits = [self.scriptedEffect.integerParameter(n) for n in ("FirstSlice", "LastSlice")]
        self.panel.from_parameters(options, (limits[0], limits[1]))

    def updateMRMLFromGUI(self) -> None:
        node = self.scriptedEffect.parameterSetNode()
        if node is None or self.panel is None:
            return
        wasLimited = self.scriptedEffect.integerParameter("LimitSlices") != 0
        values = self.panel.to_parameters()
        if values["LimitSlices"] and not wasLimited and not values["LastSlice"]:
            values["FirstSlice"], values["LastSlice"] = self.sliceRange()
        for name, value in values.items():
            self.scriptedEffect.setParameter(name, value)
        self.updateGUIFromMRML()

    # Life

    def activate(self) -> None:
        self.isActive = True
        try:
            library.make_importable()
        except RuntimeError as error:
            self.interaction.say(str(error), "error")
            return
        before = self.interaction.message
        if self.panel is not None:
            models_list.fill(self.panel.model, models_list.offered())
        self.updateGUIFromMRML()
        self.watch.attach(self.scriptedEffect.parameterSetNode())
        self.views.find()
        self.shortcuts.enable()
        self.interaction.selection_changed()
        self.interaction.come_back()
        self.interaction.jobs.shelf.resize_cache(preferences.cache_bytes())
        missing = library.missing_for_builtin()
        if missing and self.interaction.options.choice.name == "builtin":
            self.interaction.say(missing, "error")
        elif library.torch_version() is not None and self.interaction.message is before:
            self.interaction.readiness.load()  # or it would hide what was just told
        self.redraw()

    def deactivate(self) -> None:
        self.isActive = False
        self.cancelDrag()
        self.shortcuts.disable()
        self.watch.catch_up()
        self.watch.detach()
        self.interaction.leave()
        self.pump.stop()
        self.views.leave()
        self._hovered = None

    def cleanup(self) -> None:
        self.deactivate()
        self.interaction.reset()
        self.pump.close()
        if self.panel is not None:
            self.panel.close()

    def sourceVolumeNodeChanged(self) -> None:
        if self.isActive:
            self.cancelDrag()
            self.interaction.source_changed()
        else:  # the scene may have been closed
            self.interaction.waiting.prune()

    def layoutChanged(self) -> None:
        if self.isActive:
            self.cancelDrag()
            self._hovered = None
            self.views.find()
            self.interaction.refresh()  # the segmentation may be shown in other views now
            self.redraw()

    # Events

    def processInteractionEvents(
        self, callerInteractor: Any, eventId: int, viewWidget: Any
    ) -> bool:
        if not views.is_slice_view(viewWidget) or not self.isActive:
            return False
        self.views.notice(viewWidget, eventId)
        xy = callerInteractor.GetEventPosition()
        command = vtk.vtkCommand
        if eventId == command.LeftButtonPressEvent:
            return self.onPress(callerInteractor, xy, viewWidget)
        if eventId == command.LeftButtonReleaseEvent:
            return self.onRelease(xy, viewWidget)
        if eventId == command.LeftButtonDoubleClickEvent:
            # The first press was the click. Without this, Slicer would maximize the view.
            self.cancelDrag()
            self._doubleClicked = True
            return True
        if eventId == command.MouseMoveEvent:
            return self.onMove(xy, viewWidget)
        if eventId == command.LeaveEvent:
            self.hover(None)
            return False
        if eventId == command.KeyPressEvent:
            return self.onKey(callerInteractor.GetKeySym(), viewWidget)
        return False

    def processViewNodeEvents(self, callerViewNode: Any, eventId: int, viewWidget: Any) -> None:
        if not views.is_slice_view(viewWidget) or not self.isActive:
            return
        if self.gesture.view is not None and self.gesture.view == viewWidget:
            if not self.gesture.holds(views.slice_node(viewWidget)):
                self.cancelDrag()  # scrolled away: a box lies on one slice
            elif self.gesture.dragging:
                self.drawOutline(viewWidget, self._xy)
        self.drawOne(viewWidget)
        self.updateStrip()

    def onPress(self, interactor: Any, xy: Any, viewWidget: Any) -> bool:
        self.cancelDrag()  # a press whose release was lost
        self._doubleClicked = False
        if interactor.GetShiftKey():
            return False  # Shift moves the crosshair
        node = views.slice_node(viewWidget)
        if interactor.GetControlKey() and interactor.GetAltKey():
            ratio = views.pixel_ratio(viewWidget)
            self.removeMark(self.interaction.book.nearest(node, xy, REACH * ratio))
            return True
        confirmed = self.scriptedEffect.confirmCurrentSegmentVisible()
        if confirmed != self.scriptedEffect.ConfirmedWithoutDialog:
            return True  # a dialog has swallowed the release
        ratio = views.pixel_ratio(viewWidget)
        self.gesture.press(viewWidget, node, xy, bool(interactor.GetControlKey()), ratio)
        self._xy = xy
        return True

    def onMove(self, xy: Any, viewWidget: Any) -> bool:
        if self.gesture.view is None:
            self.hoverAt(xy, viewWidget)
            self.interaction.readiness.aim_at(views.slice_node(viewWidget))
            return False
        if self.gesture.view != viewWidget:
            return False
        self._xy = xy
        if self.gesture.move(views.slice_node(viewWidget), xy):
            self.drawOutline(viewWidget, xy)
        return True

    def onRelease(self, xy: Any, viewWidget: Any) -> bool:
        if self.gesture.view is None or self.gesture.view != viewWidget:
            wasOurs, self._doubleClicked = self._doubleClicked, False
            return wasOurs
        node = views.slice_node(viewWidget)
        found = self.gesture.release(node, xy)
        self.cancelDrag()
        if isinstance(found, Box):
            self.interaction.add_box(node, found.corners)
        elif isinstance(found, Click):
            self.interaction.add_point(node, found.ras, found.label)
        return True

    def onKey(self, key: str, viewWidget: Any) -> bool:
        """Whether it did anything; others get the key if not, as Markups the Delete key."""
        if key == "Escape":
            wasDragging = self.gesture.view is not None
            self.cancelDrag()
            return wasDragging
        actions = {
            "Return": self.onSegment,
            "KP_Enter": self.onSegment,
            "Delete": self.onDelete,
            "c": self.onNextCandidate,
            "x": self.onWeakest,
        }
        return key in actions and actions[key]()

    def drawOutline(self, viewWidget: Any, xy: Any) -> None:
        overlay = self.views.overlay(viewWidget)
        overlay.outline(views.slice_node(viewWidget), self.gesture.start, xy)
        self.scriptedEffect.scheduleRender(viewWidget)

    def cancelDrag(self) -> None:
        """Forget the press, and take the outline away. Callable at any time."""
        self.gesture.cancel()
        self.views.remove_outline()

    # Prompts under the mouse

    def hoverAt(self, xy: Any, viewWidget: Any) -> None:
        ratio = views.pixel_ratio(viewWidget)
        node = views.slice_node(viewWidget)
        number = self.interaction.book.nearest(node, xy, REACH * ratio)
        self.hover(None if number is None else (viewWidget, number))

    def hover(self, hovered: tuple[Any, int] | None) -> None:
        if hovered != self._hovered:
            before, self._hovered = self._hovered, hovered
            for viewWidget in {each[0] for each in (before, hovered) if each is not None}:
                self.drawOne(viewWidget)

    def removeMark(self, number: int | None) -> bool:
        self._hovered = None
        return self.interaction.remove_mark(number)

    # Buttons and keys; those of keys tell whether they did anything

    def onDelete(self) -> bool:
        return self.removeMark(None if self._hovered is None else self._hovered[1])

    def onExisting(self) -> None:
        self.updateGUIFromMRML()  # nobody else tells of parameters while the effect is not active
        inUse, fullest = self.views.in_use(), self.interaction.book.fullest
        known = inUse or fullest(self.views.earlier()) or fullest(self.views.nodes())
        node = known or self.views.current()
        if node is None:
            self.interaction.say(_("There is no slice view to take the slice from."), "error")
        else:
            self.interaction.add_existing(node)

    def onNextCandidate(self) -> bool:
        self.updateGUIFromMRML()
        return self.interaction.next_candidate()

    def onClear(self) -> None:
        self._hovered = None
        self.interaction.clear()

    def onSegment(self) -> bool:
        self.updateGUIFromMRML()
        return not self.interaction.sliding and self.confirmVisible() and self.interaction.segment()

    def onApply(self) -> None:
        self.updateGUIFromMRML()
        if self.confirmVisible():
            self.interaction.apply()

    def confirmVisible(self) -> bool:
        """Whether to go on: Slicer asks its user where the segment is hidden.

        Without a segment it would say no, and nothing else; what follows says why.
        """
        chosen = self.interaction.book.segment_id is not None
        return not chosen or self.scriptedEffect.confirmCurrentSegmentVisible() != 0  # NotConfirmed

    def onRotate(self) -> None:
        node, volumeNode = self.views.current(), self.interaction.book.volume_node
        if node is not None and volumeNode is not None:
            node.RotateToVolumePlane(volumeNode)
            self.interaction.say(_("Rotated. Now mark the object."))

    def onWeakest(self) -> bool:
        if self.interaction.sliding:
            return False
        work = self.interaction.work
        if work is None or not work.has_result:
            self.interaction.say(_("There is no result yet: segment first."), "error")
            return False
        return self.jumpTo(work.weakest + int(work.source.part.first[work.axis]))

    def jumpTo(self, index: int) -> bool:
        """Show a slice, counted as in the segmentation, in the views of that orientation."""
        work = self.interaction.work
        if work is None:
            return False
        part = self.interaction.reader.part() or work.source.part
        jumped = self.views.jump(part, work.axis, index)
        if not jumped:
            self.interaction.say(_("No view shows slices of this direction."), "error")
        return jumped

    # State to widgets

    def onChange(self) -> None:
        """Something that is shown may have changed."""
        self.pump.update()
        if self.panel is None:
            return
        interaction = self.interaction
        work = interaction.work if self.isActive else None
        self.panel.show_message(interaction.message.text, interaction.message.kind)
        self.panel.show_progress(interaction.progress)
        prompts = interaction.book.prompts if self.isActive else None
        self.panel.enable(
            sliding=interaction.sliding,
            marked=bool(prompts),
            begun=bool(prompts) or work is not None,
            previewed=work is not None and bool(work.previews) and not work.has_result,
            dirty=work is not None and work.dirty and work.has_result,
            rated=work is not None and work.has_result,
        )
        if self.isActive:
            part = interaction.reader.part()
            self.views.update(part, prompts, interaction.preview, self._hovered)
        self.updateStrip()

    def redraw(self) -> None:
        """Draw the prompts and the dashed outlines in all views."""
        if self.isActive:
            book, preview = self.interaction.book, self.interaction.preview
            self.views.draw(book.reader.part(), book.prompts, preview, self._hovered)

    def drawOne(self, viewWidget: Any) -> None:
        """Draw them in one view."""
        book, preview = self.interaction.book, self.interaction.preview
        self.views.draw_one(viewWidget, book.reader.part(), book.prompts, preview, self._hovered)

    def updateStrip(self) -> None:
        if self.panel is not None:
            nodes = self.views.nodes() if self.isActive else []
            self.panel.strip.show(state_of(self.interaction if self.isActive else None, nodes))

    def sliceRange(self) -> tuple[int, int]:
        """The first and the last slice of the slide's direction, as the range control starts."""
        part, work = self.interaction.book.reader.part(), self.interaction.work
        if part is None:
            return 0, 0
        axis = work.axis if work is not None else 2
        return int(part.first[axis]), int(part.last[axis])
