"""The options frame of the effect: widgets only; what they do is handed in as actions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import qt
from slicer.i18n import tr as _
from SlideSAMBridge.effect.applying import MODES
from SlideSAMBridge.effect.options import slices_text

from . import models_list
from .parameters import DIRECTIONS
from .strip import ConfidenceStrip

MESSAGE_COLORS = {"info": "", "error": "color: #d04040;", "oblique": "color: #c07800;"}
GREATEST = 99999


class Panel:
    """The widgets, in the order they are shown.

    actions : what to call, by name: rotate, existing, candidate, clear, segment, cancel, apply,
        discard, weakest, changed. on_jump : called with the slice clicked on in the strip.
    """

    def __init__(
        self,
        effect: Any,
        actions: Mapping[str, Callable[[], Any]],
        on_jump: Callable[[int], Any],
    ) -> None:
        self._effect = effect
        self._actions = dict(actions)
        self._connections: list[tuple[Any, str, Callable[[], None]]] = []
        self._shown_model = ""
        self._add_message()
        self._add_prompts()
        self._add_options()
        self._add_limits()
        self._add_run()
        self._add_result(on_jump)

    # Building

    def _add_message(self) -> None:
        self.message = qt.QLabel()
        self.message.objectName = "SlideSAMMessage"
        self.message.wordWrap = True
        self.message.textFormat = qt.Qt.PlainText  # names in it may look like HTML
        # Room for three lines, so that the panel does not jump with every sentence.
        self.message.setMinimumHeight(3 * self.message.fontMetrics().height() + 4)
        self.message.setAlignment(qt.Qt.AlignTop)
        self._effect.addOptionsWidget(self.message)
        self.rotate = self._button(
            "rotate",
            _("Rotate view to the volume"),
            _("Turn the slice view so that it shows whole slices of the volume."),
        )
        self.rotate.setVisible(False)
        self._effect.addOptionsWidget(self.rotate)

    def _add_prompts(self) -> None:
        self.existing = self._button(
            "existing",
            _("Use existing"),
            _("Take what the segment already has on the current slice as a prompt."),
        )
        self.candidate = self._button(
            "candidate",
            _("Other mask"),
            _("Show the next of the masks that the model offers for the slice. Shortcut: C"),
        )
        self.clear = self._button(
            "clear",
            _("Clear"),
            _(
                "Remove all prompts and the preview; the segment stays as it is. Single prompts: "
                "Ctrl+Alt+click, or Delete with the mouse on them."
            ),
        )
        self._effect.addLabeledOptionsWidget(
            _("Prompts:"), _row([self.existing, self.candidate, self.clear])
        )

    def _add_options(self) -> None:
        self.model = qt.QComboBox()
        self.model.setToolTip(_("The model that predicts the masks."))
        self.direction = _choice(
            DIRECTIONS,
            (_("both ways"), _("forward"), _("backward")),
            _("Where to slide from the marked slices; forward: to slices of higher numbers."),
        )
        self.mode = _choice(
            MODES,
            (_("add to segment"), _("replace segment"), _("remove from segment")),
            _("What applying does with the selected segment."),
        )
        self.autoApply = qt.QCheckBox(_("apply automatically when done"))
        self.autoApply.setToolTip(_("Write the result into the segment without asking."))
        for text, widget in (
            (_("Model:"), self.model),
            (_("Slide:"), self.direction),
            (_("Result:"), self.mode),
            ("", self.autoApply),
        ):
            self._effect.addLabeledOptionsWidget(text, widget)
        for box in (self.model, self.direction, self.mode):
            self._connect(box, "currentIndexChanged(int)", self._changed)
        self._connect(self.autoApply, "toggled(bool)", self._changed)

    def _add_limits(self) -> None:
        self.limit = qt.QCheckBox(_("from"))
        self.limit.setToolTip(_("Slide within these slices only; otherwise to the object's end."))
        self.first, self.last = qt.QSpinBox(), qt.QSpinBox()
        for box, text in (
            (self.first, _("The first slice that may be segmented.")),
            (self.last, _("The last slice that may be segmented.")),
        ):
            box.setRange(-GREATEST, GREATEST)
            box.setToolTip(text)
            self._connect(box, "valueChanged(int)", self._changed)
        self._connect(self.limit, "toggled(bool)", self._changed)
        row = _row([self.limit, self.first, qt.QLabel(_("to")), self.last])
        self._effect.addLabeledOptionsWidget(_("Slices:"), row)

    def _add_run(self) -> None:
        self.segment = self._button(
            "segment",
            _("Segment"),
            _("Slide from the marked slices through the object. Shortcut: Enter in a slice view"),
        )
        self.cancel = self._button(
            "cancel", _("Cancel"), _("Stop sliding; finished slices stay in the preview.")
        )
        self._effect.addOptionsWidget(_row([self.segment, self.cancel]))
        self.progress = qt.QProgressBar()
        self.progress.objectName = "SlideSAMProgress"
        self._effect.addOptionsWidget(self.progress)
        self.apply = self._button(
            "apply", _("Apply"), _("Write the preview into the segment, as one undo step.")
        )
        self.discard = self._button(
            "discard", _("Discard"), _("Drop the preview of the result; the prompts stay.")
        )
        self._effect.addOptionsWidget(_row([self.apply, self.discard]))

    def _add_result(self, on_jump: Callable[[int], Any]) -> None:
        self.strip = ConfidenceStrip(
            on_jump,
            _(
                "How sure the model is of each slice: a bar per slice, orange where it does not "
                "reach the grey line, blue ticks at marked slices, a white line at the slice that "
                "is shown. Click to go to a slice."
            ),
        )
        # In a layout: of a widget that is added by itself, Slicer overwrites the size policy, and
        # then the panel could never be narrower than what the strip has drawn.
        self._effect.addOptionsWidget(_row([self.strip.label]))
        self.weakest = self._button(
            "weakest",
            _("Go to weakest slice"),
            _("Show the slice that the model is least sure of. Shortcut: X"),
        )
        self._effect.addOptionsWidget(self.weakest)

    def _button(self, name: str, text: str, tooltip: str) -> Any:
        button = qt.QPushButton(text)
        button.objectName = "SlideSAM" + name.capitalize()
        button.setToolTip(tooltip)
        self._connect(button, "clicked()", self._actions[name])
        return button

    def _connect(self, widget: Any, signal: str, function: Callable[[], None]) -> None:
        widget.connect(signal, function)
        self._connections.append((widget, signal, function))

    def _changed(self) -> None:
        self._actions["changed"]()

    # Parameters

    def to_parameters(self) -> dict[str, str | int]:
        """What the widgets say, by parameter name; the model only where it was chosen here."""
        model = str(self.model.itemData(self.model.currentIndex) or "builtin")
        return {
            **({} if model == self._shown_model else {"Model": model}),
            "Direction": DIRECTIONS[max(0, self.direction.currentIndex)],
            "Mode": MODES[max(0, self.mode.currentIndex)],
            "AutoApply": 1 if self.autoApply.checked else 0,
            "LimitSlices": 1 if self.limit.checked else 0,
            "FirstSlice": self.first.value,
            "LastSlice": self.last.value,
        }

    def from_parameters(self, options: Any, limits: tuple[int, int]) -> None:
        """Show the parameters without telling anybody. limits : FirstSlice and LastSlice."""
        widgets = (
            self.model,
            self.direction,
            self.mode,
            self.autoApply,
            self.limit,
            self.first,
            self.last,
        )
        blocked = [widget.blockSignals(True) for widget in widgets]
        try:
            models_list.select(self.model, options.choice.name)
            self._shown_model = options.choice.name
            self.direction.setCurrentIndex(DIRECTIONS.index(options.direction))
            self.mode.setCurrentIndex(MODES.index(options.mode))
            self.autoApply.setChecked(options.auto_apply)
            self.limit.setChecked(options.first is not None)
            self.first.setValue(limits[0])
            self.last.setValue(limits[1])
            for box in (self.first, self.last):
                box.setEnabled(options.first is not None)
        finally:
            for widget, was in zip(widgets, blocked, strict=True):
                widget.blockSignals(was)

    # State

    def show_message(self, text: str, kind: str) -> None:
        self.message.setText(text)
        self.message.setStyleSheet(MESSAGE_COLORS[kind])
        self.rotate.setVisible(kind == "oblique")

    def show_progress(self, progress: Any) -> None:
        """The bar of a slide; progress : jobs.Progress, None where nothing slides."""
        self.progress.setVisible(progress is not None)
        if progress is None:
            return
        self.progress.setRange(0, progress.possible or 0)  # 0 to 0: busy
        self.progress.setValue(progress.done)
        text = slices_text(progress.done)
        if progress.possible:
            text = _("{done} of at most {slices}").format(
                done=progress.done, slices=slices_text(progress.possible)
            )
        if progress.seconds_left is not None:
            text += _(", at most {seconds} s left").format(seconds=round(progress.seconds_left))
        self.progress.setFormat(text)

    def enable(
        self,
        sliding: bool,
        marked: bool,
        begun: bool,
        previewed: bool,
        dirty: bool,
        rated: bool,
    ) -> None:
        """Let only those controls be used that do something now."""
        self.segment.setEnabled(marked and not sliding)
        self.cancel.setEnabled(sliding)
        self.apply.setEnabled(dirty and not sliding)
        self.discard.setEnabled(dirty and not sliding)
        self.candidate.setEnabled(previewed and not sliding)
        self.existing.setEnabled(not sliding)
        self.clear.setEnabled(begun)
        self.weakest.setEnabled(rated and not sliding)
        for widget in (self.model, self.direction, self.mode, self.limit):
            widget.setEnabled(not sliding)

    def close(self) -> None:
        """Let go of what would keep this object alive, and the effect with it."""
        for widget, signal, function in self._connections:
            widget.disconnect(signal, function)
        self._connections.clear()
        self.strip.close()


def _row(widgets: Sequence[Any]) -> Any:
    layout = qt.QHBoxLayout()
    layout.setContentsMargins(0, 0, 0, 0)
    for widget in widgets:
        layout.addWidget(widget, 0 if widget.inherits("QLabel") else 1)
    return layout


def _choice(values: Sequence[str], texts: Sequence[str], tooltip: str) -> Any:
    box = qt.QComboBox()
    for value, text in zip(values, texts, strict=True):
        box.addItem(text, value)
    box.setToolTip(tooltip)
    return box
