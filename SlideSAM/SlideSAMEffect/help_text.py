"""What the Segment Editor shows as the effect's help."""

from __future__ import annotations

from slicer.i18n import tr as _


def help_text() -> str:
    """HTML; what stands before the first <br> is shown, the rest is behind a link."""
    first = _("Mark an object on one slice; a window of three slices slides through the rest.")
    keys = _(
        "Click: inside the object. Ctrl+click: outside. Drag: box around it. Ctrl+Alt+click, or "
        "Delete with the mouse on it: remove a prompt. C: another mask. Enter in a slice view: "
        "segment all slices. X: go to the weakest slice."
    )
    after = _(
        "After a run, a click refines its slice and slides again up to the next marked slice. "
        "Clear starts another object. Slices that the model is not sure of are dimmed in the "
        "preview. For research only, not for clinical use."
    )
    return f"<html>{first}<br><p>{keys}</p><p>{after}</p></html>"
