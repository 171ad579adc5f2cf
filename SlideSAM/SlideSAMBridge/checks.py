"""Whether the arguments of a call can be used at all; each refusal is a ValueError."""

from __future__ import annotations

import os
from typing import Any

from .text import tr as _


def is_a(value: Any, class_name: str) -> bool:
    """Whether it is an object of VTK of that class."""
    return hasattr(value, "IsA") and bool(value.IsA(class_name))


def editor_node(value: Any) -> None:
    if not is_a(value, "vtkMRMLSegmentEditorNode"):
        raise ValueError(_("The editor node must be a vtkMRMLSegmentEditorNode."))


def editor_logic(value: Any) -> None:
    if not is_a(value, "vtkSlicerSegmentEditorLogic"):
        raise ValueError(_("The editor logic must be a vtkSlicerSegmentEditorLogic."))


def segmentation_node(value: Any) -> None:
    if not is_a(value, "vtkMRMLSegmentationNode"):
        raise ValueError(_("The segmentation node must be a vtkMRMLSegmentationNode."))


def segment_id(segmentation: Any, value: Any) -> None:
    """segmentation : a vtkSegmentation, which has to have this segment."""
    if not isinstance(value, str) or segmentation.GetSegment(value) is None:
        raise ValueError(
            _("There is no segment with the id '{segment_id}' (an id is not a name).").format(
                segment_id=value
            )
        )


def mode(value: Any) -> None:
    if value not in ("add", "replace"):
        raise ValueError(_("The mode must be 'add' or 'replace', not {mode!r}.").format(mode=value))


def function(name: str, value: Any) -> None:
    """None will do as well."""
    if value is not None and not callable(value):
        raise ValueError(
            _("{name} must be a function or None, not {value!r}.").format(name=name, value=value)
        )


def settings(value: Any) -> None:
    """None will do as well."""
    from SlideSAMLib import SlideSettings

    if value is not None and not isinstance(value, SlideSettings):
        raise ValueError(
            _("The settings must be a SlideSAMLib.SlideSettings, not {value!r}.").format(
                value=value
            )
        )


def model_name(value: Any) -> str | None:
    """The name or file of a model; None where it looks like a loaded one."""
    if isinstance(value, str | os.PathLike):
        return os.fspath(value)
    if not all(hasattr(value, part) for part in ("traits", "encode", "predict")):
        raise ValueError(
            _(
                "The model must be a name, a file or what SlideSAMLib.load_model returns, not "
                "{value!r}."
            ).format(value=value)
        )
    return None
