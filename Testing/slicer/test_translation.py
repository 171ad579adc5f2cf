"""Sentences for the user can be translated: Slicer finds them in the code, and at run time."""

import ast

import pytest

from Testing.slicer.conftest import MODULE_FOLDER

pytestmark = pytest.mark.slicer
FILES = sorted(MODULE_FOLDER.rglob("*.py"))


@pytest.fixture
def translated(session, slidesam, monkeypatch):
    """Gives a sentence a translation in a context, which is the file that says it."""
    from Testing.host import i18n

    def add(context, text, translation):
        monkeypatch.setitem(i18n.translations, (context, text), translation)

    return add


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(MODULE_FOLDER).as_posix())
def test_slicer_finds_every_sentence(path):
    """Its script that collects sentences knows `_` with a text inside, and not with a name."""
    calls = [node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if is_translated(node)]
    for call in calls:
        given = call.args[0]
        assert isinstance(given, ast.Constant) and isinstance(given.value, str), call.lineno


def test_a_thing_has_one_name():
    """Buttons and help say mask and prompt, so do the messages."""
    for path in FILES:
        for call in filter(is_translated, ast.walk(ast.parse(path.read_text("utf-8")))):
            text = call.args[0].value
            assert "candidate" not in text.lower(), text
            assert "the mark" not in text.replace("the marked", ""), text


def is_translated(node):
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "_"


def test_a_sentence_is_looked_up_by_its_own_file(translated):
    """The template goes through Slicer's translator, the values are put in afterwards."""
    from SlideSAMBridge.scene import marks

    text = "There are {count} points but {labels} labels: give one each."
    translated("SlideSAMBridge.text", text, "wrong context")
    translated("scene.marks", text, "{labels} Angaben, {count} Punkte.")
    with pytest.raises(ValueError, match=r"1 Angaben, 2 Punkte\."):
        marks.from_ras(None, 0, [[0, 0, 0], [1, 1, 1]], [1], None)


def test_a_translation_with_other_placeholders_is_not_taken(translated):
    from SlideSAMBridge.scene import marks

    text = "There are {count} points but {labels} labels: give one each."
    translated("scene.marks", text, "{zahl} Punkte.")
    with pytest.raises(ValueError, match="There are 2 points"):
        marks.from_ras(None, 0, [[0, 0, 0], [1, 1, 1]], [1], None)


def test_every_reason_to_stop_has_a_text():
    from SlideSAMBridge.effect.jobs import STOPS

    from SlideSAMLib.sliding.stops import Stop

    assert set(STOPS) == {str(stop) for stop in Stop}


def test_english_outside_slicer(monkeypatch):
    """As in a script with slicer-core, which has no translator."""
    import importlib
    import sys

    from SlideSAMBridge import text

    monkeypatch.setitem(sys.modules, "slicer.i18n", None)
    assert importlib.reload(text).tr("Ready") == "Ready"
    monkeypatch.undo()
    importlib.reload(text)
