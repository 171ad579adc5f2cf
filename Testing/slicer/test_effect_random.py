"""Two hundred random sequences of events, each followed by a look at what it left behind."""

import random
import threading

import pytest
from PySide6 import QtCore, QtWidgets
from SlideSAMBridge.effect import applying

from Testing.host import pythonqt_rules
from Testing.slicer.effect_stage import SAMPLE_EFFECT
from Testing.slicer.test_effect_life import settle

pytestmark = pytest.mark.slicer

SEQUENCES = 25  # for each of the eight seeds
MOUSE = (
    "LeftButtonPressEvent",
    "LeftButtonReleaseEvent",
    "MouseMoveEvent",
    "MouseWheelForwardEvent",
    "MouseWheelBackwardEvent",
    "LeftButtonDoubleClickEvent",
    "RightButtonPressEvent",
    "RightButtonReleaseEvent",
    "MiddleButtonPressEvent",
    "MiddleButtonReleaseEvent",
    "LeaveEvent",
)
KEYS = ("c", "x", "Return", "Delete", "Escape", "q", "f", "b")
BUTTONS = ("cancel", "apply", "discard", "clear", "segment", "existing", "weakest", "candidate")


class Player:
    """Does random things to a stage, and notes what was applied, undone and redone last."""

    def __init__(self, stage, model, seed, monkeypatch):
        self.stage, self.model, self.chance = stage, model, random.Random(seed)
        self.expected, self.applied = {}, 0
        self.before = None  # what Undo brings back, where the last edit was an apply
        segmentation = stage.scene.segmentation
        self.areas = (
            segmentation.EditAllowedEverywhere,
            segmentation.EditAllowedEverywhere,
            segmentation.EditAllowedOutsideAllSegments,
        )
        self._apply = applying.apply
        monkeypatch.setattr(applying, "apply", self.apply)
        self.note()

    def apply(self, effect, work, *arguments):
        node, before = self.stage.editor.node, dict(self.expected)
        self._apply(effect, work, *arguments)
        self.applied += 1
        self.note()
        other = "B" if work.segment_id == "A" else "A"
        taken = before[other] & ~self.expected[other]
        added = self.expected[work.segment_id] & ~before[work.segment_id]
        masked = node.GetMaskMode() != self.stage.scene.segmentation.EditAllowedEverywhere
        assert not (masked or node.GetOverwriteMode() == node.OverwriteNone) or not taken.any()
        assert not masked or not (added & before[other]).any()
        changed = any((before[name] != self.expected[name]).any() for name in "AB")
        self.before = before if changed else None

    def note(self):
        self.expected.update({name: self.stage.mask(name) for name in "AB"})

    def history(self, step):
        logic = self.stage.editor.logic
        if getattr(logic, f"Can{step}")():
            getattr(logic, step)()
            self.note()
            if step == "Undo" and self.before is not None:
                assert all((self.before[name] == self.expected[name]).all() for name in "AB")
            self.before = None

    def mouse(self):
        chance, stage = self.chance, self.stage
        name, view = chance.choice(list(stage.views.items()))
        spot = stage.xy((chance.uniform(-2, 21), chance.uniform(-2, 17), 6), name)
        inside = stage.xy(chance.choice([(6, 5, 6), (9, 7, 6), (12, 9, 6), (15, 5, 6)]), name)
        keys = chance.choice([{}, {}, {}, {"ctrl": 1}, {"shift": 1}, {"ctrl": 1, "alt": 1}])
        chance.choice(
            (
                lambda: view.event(chance.choice(MOUSE), spot, **keys),
                lambda: view.event(chance.choice(MOUSE), inside, **keys),
                lambda: view.click(inside, **keys),
                lambda: view.drag(spot, inside),
                lambda: view.press_key(chance.choice(KEYS)),
            )
        )()

    def anything(self):
        chance, stage = self.chance, self.stage
        chance.choice(
            (
                self.mouse,
                self.mouse,
                self.mouse,
                self.mouse,
                lambda: stage.editor.node.SetSelectedSegmentID(chance.choice("AB")),
                lambda: stage.editor.setActiveEffectByName(
                    chance.choice(["", "Sample box", "Slide-SAM", "Slide-SAM"])
                ),
                lambda: self.history("Undo"),
                lambda: self.history("Redo"),
                lambda: stage.editor.node.SetOverwriteMode(chance.randrange(3)),
                lambda: stage.editor.node.SetMaskMode(chance.choice(self.areas)),
                lambda: getattr(stage.panel, chance.choice(BUTTONS)).click(),
                lambda: stage.effect.setParameter("Mode", chance.choice(["add", "remove"])),
                lambda: stage.effect.setParameter("AutoApply", chance.choice([0, 1, 1])),
                lambda: setattr(self.model, "delay", chance.choice([0, 0, 0.01])),
                QtWidgets.QApplication.processEvents,
                self.idle,
                self.idle,
                stage.python.layoutChanged,
            )
        )()
        if stage.editor.active is None and chance.random() < 0.5:
            stage.open()

    def idle(self):
        """Hands off the mouse until the job is done."""
        self.model.delay = 0
        self.stage.wait()

    def sequence(self):
        if self.chance.random() < 0.6:  # somebody knows what to do
            self.stage.effect.setParameter("Mode", "add")
            self.stage.effect.setParameter("AutoApply", 1)
            self.stage.click((9, 7, 6), self.chance.choice(list(self.stage.views)))
            self.idle()
            self.stage.key("Return")
            if self.chance.random() < 0.7:
                self.idle()
        for _ in range(self.chance.randint(2, 12)):
            self.anything()
            if stage_is_another_effect(self.stage):
                self.note()  # what the other effect draws is not ours to judge
                self.before = None
        if self.chance.random() < 0.4:
            self.idle()


def stage_is_another_effect(stage):
    return stage.editor.active is not None and stage.editor.active is not stage.effect


def timers(stage):
    """How many timers run in the effect's half that Qt sees."""
    frame = stage.effect.optionsFrame()
    return sum(timer.isActive() for timer in QtCore.QObject.findChildren(frame, QtCore.QTimer))


def own_props(stage):
    """How many props every view has, without the four that Slicer has for every labelmap."""
    layers = stage.scene.contents.GetNumberOfLayers("Binary labelmap")  # two where segments overlap
    return [count - 4 * layers for count in stage.props()]


@pytest.mark.parametrize("seed", range(8))
def test_random_events(stage_of, quick_model, seed, monkeypatch):
    """No exception, observer, actor, timer or thread is left, and the segments are as applied.

    "As applied" is the state after the last apply, undo or redo. What an apply may change follows
    the mask and the overwrite mode, and Undo takes back all of it.
    """
    stage = stage_of(view_names=("Red", "Yellow", "Green"))
    stage.editor.addEffect(SAMPLE_EFFECT)
    stage.editor.logic.AddEmptySegment("B")
    stage.editor.node.SetSelectedSegmentID("A")
    stage.editor.logic.ClearUndoState()
    stage.shut()
    props = own_props(stage)
    threads = {thread.name for thread in threading.enumerate()}
    player = Player(stage, quick_model, seed, monkeypatch)
    for _ in range(SEQUENCES):
        stage.open()
        player.sequence()
        for name in "AB":
            assert (stage.mask(name) == player.expected[name]).all()
        stage.shut()
        settle(stage, quick_model)
        assert stage.editor.errors == [] and pythonqt_rules.log == []
        assert own_props(stage) == props and stage.python.watch.observers == 0
        assert not stage.python.pump.running and timers(stage) == 0
        assert stage.interaction.preview.node is None and stage.interaction.jobs.job is None
        assert {thread.name for thread in threading.enumerate()} == threads
        for name in "AB":
            assert (stage.mask(name) == player.expected[name]).all()
    assert player.applied >= 3  # or nothing of interest has happened
