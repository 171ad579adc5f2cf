"""Tells an Interaction what happens in the scene while its effect is active. No Qt."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..watch import Watch
from .interaction import Interaction


class SceneWatch:
    """Observers on the editor node, the segmentation, the volume and the scene.

    on_redraw : called when the prompts have to be drawn anew, since they lie elsewhere.
    """

    def __init__(self, interaction: Interaction, on_redraw: Callable[[], None]) -> None:
        self._interaction = interaction
        self._on_redraw = on_redraw
        self._editor = Watch()
        self._nodes = Watch()
        self._state: tuple = ()

    @property
    def observers(self) -> int:
        """How many observers there are."""
        return len(self._editor) + len(self._nodes)

    def attach(self, editor_node: Any) -> None:
        """Start watching; everything that was watched before is let go."""
        self.detach()
        if editor_node is None:
            return
        self._editor.add(editor_node, "ModifiedEvent", self._on_editor)
        scene = editor_node.GetScene()
        if scene is not None:
            self._editor.add(scene, scene.StartCloseEvent, self._on_close)
        self._state = self._now()
        self._watch_nodes()

    def detach(self) -> None:
        """Stop watching."""
        self._editor.clear()
        self._nodes.clear()
        self._state = ()

    def catch_up(self) -> None:
        """Tell now what the editor node will tell later, as where it ends the effect first."""
        if len(self._editor):
            self._on_editor(None, "")

    def _now(self) -> tuple:
        book = self._interaction.book
        return (book.segmentation_node, book.volume_node, book.segment_id)

    def _watch_nodes(self) -> None:
        self._nodes.clear()
        segmentation_node, volume_node, _ = self._state
        if segmentation_node is not None:
            contents = segmentation_node.GetSegmentation()
            self._nodes.add(contents, contents.SegmentRemoved, self._on_removed)
            self._nodes.add(contents, contents.SegmentModified, self._on_segment)
            event = segmentation_node.TransformModifiedEvent
            self._nodes.add(segmentation_node, event, self._on_moved)
        if volume_node is not None:
            self._nodes.add(volume_node, volume_node.ImageDataModifiedEvent, self._on_volume)
            self._nodes.add(volume_node, "ModifiedEvent", self._on_volume)
            self._nodes.add(volume_node, volume_node.TransformModifiedEvent, self._on_moved)

    def _on_editor(self, caller: Any, event: str) -> None:
        before, now = self._state, self._now()
        if now == before:
            return
        self._state, told = now, self._interaction.message
        if now[:2] != before[:2]:
            self._watch_nodes()
            self._interaction.source_changed()
        self._interaction.selection_changed()
        other = now[::2] != before[::2]  # what a volume's change has done is told by now
        if other and self._interaction.message is told and not self._interaction.jobs.loading:
            self._interaction.orient()

    def _on_removed(self, caller: Any, event: str) -> None:
        self._interaction.segment_removed()

    def _on_segment(self, caller: Any, event: str, segment_id: str | None = None) -> None:
        # Undo and saving touch every segment, several times each; only one of them is shown.
        if segment_id in (None, self._interaction.book.segment_id):
            self._interaction.marks_changed()

    _on_segment.CallDataType = "string0"  # as vtk.calldata_type(vtk.VTK_STRING) would

    def _on_moved(self, caller: Any, event: str) -> None:
        self._on_redraw()

    def _on_volume(self, caller: Any, event: str) -> None:
        # Sent for a new name, too; and scripts that write voxels send nothing else.
        self._interaction.check_sources()

    def _on_close(self, caller: Any, event: str) -> None:
        self._nodes.clear()
        self._state = ()
        self._interaction.reset()
