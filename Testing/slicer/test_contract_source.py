"""Rules for what Slicer loads that are read off its source: no run would show a breach of them."""

import ast
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "SlideSAM"
FILES = sorted(FOLDER.rglob("*.py"))
TREES = {path: ast.parse(path.read_text(), feature_version=(3, 11)) for path in FILES}


def calls(name):
    """(path, call) of every call of a function or method of this name."""
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                function = node.func
                called = getattr(function, "attr", getattr(function, "id", None))
                if called == name:
                    yield path, node


def names(tree):
    """All names and attributes in a file."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.Name, ast.Attribute)):
            yield getattr(node, "attr", getattr(node, "id", ""))


def test_it_is_python_3_11():
    """`ast.parse` above takes nothing newer; Slicer 5.10 has 3.12."""
    assert len(TREES) > 40
    with pytest.raises(SyntaxError):
        ast.parse("type Slices = dict[int, int]", feature_version=(3, 11))


def test_the_effect_stands_alone():
    """Slicer executes the file as a plain module named after its folder."""
    effect = FOLDER / "SegmentEditorSlideSAMLib" / "SegmentEditorEffect.py"
    imports = [n for n in ast.walk(TREES[effect]) if isinstance(n, ast.ImportFrom)]
    assert imports and all(node.level == 0 for node in imports)
    assert not any(node.module.startswith(effect.parent.name) for node in imports)
    packages = {path.parent.name for path in FOLDER.glob("*/__init__.py")}
    assert effect.parent.name not in packages
    importers = [
        path
        for path, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == effect.parent.name
    ]
    assert importers == []


def test_slicer_gets_paths_with_forward_slashes():
    """On Windows the folder's name, which names the module, is not found with others."""
    given = [ast.unparse(call.args[0]) for _, call in calls("setPythonSource")]
    slashes = "source.replace('\\\\', '/')"
    assert sorted(given) == ["__file__.replace('\\\\', '/')", "path.as_posix()", "source"]
    assert slashes in ast.unparse(TREES[FOLDER / "SlideSAMEffect" / "reloading.py"])


def test_arrays_are_copied_for_vtk():
    """An array that VTK only borrows may be collected before VTK is done with it."""
    found = [*calls("numpy_to_vtk"), *calls("numpy_to_vtkIdTypeArray")]
    assert len(found) >= 5
    for path, call in found:
        deep = [k.value.value for k in call.keywords if k.arg == "deep"]
        assert deep == [True], f"{path.name}:{call.lineno}"


def test_no_segmentation_is_stored_as_nifti():
    """Its storage node writes NRRD whatever the name says."""
    writers = {path.name for name in ("WriteData", "saveNode") for path, _ in calls(name)}
    assert writers == set()


def test_segments_are_written_by_the_editor_only():
    """The helper of slicer.util ignores masks and undo, and doubles transforms.

    Masks are passed over in one place, which gives others back what was taken from them.
    """
    for name in ("updateSegmentBinaryLabelmapFromArray", "SetBinaryLabelmapToSegment"):
        assert not list(calls(name))
    writers = {
        p.name for n in ("ModifySegmentByLabelmap", "modifySegmentByLabelmap") for p, _ in calls(n)
    }
    assert writers == {"applying.py", "editing.py"}
    for _, call in [*calls("ModifySegmentByLabelmap"), *calls("modifySegmentByLabelmap")]:
        assert not any(k.arg == "bypassMasking" for k in call.keywords)
    assert len([call for _, call in calls("_modify") if len(call.args) > 5 or call.keywords]) == 1


def test_observers_and_threads_have_one_home():
    """What is started in one place can be seen to be stopped."""
    observing = {path.name for path, _ in calls("AddObserver")}
    assert observing == {"watch.py", "SlideSAM.py"}  # the module's logic lives as long as it
    assert {path.name for path, _ in calls("Thread")} == {"worker.py"}
    assert {path.name for path, _ in calls("processEvents")} == {"self_tests.py"}


def test_names_that_slicer_does_not_have_or_lost():
    lost = {
        "referenceGeometryChanged",
        "masterVolumeNodeChanged",
        "masterVolumeImageData",
        "exec_",
        "setOffscreenBuffers",
        "getNode",
        "QtWidgets",
        "Signal",
        "Slot",
        "__del__",
    }
    for path, tree in TREES.items():
        assert not lost & set(names(tree)), path
        assert not lost & {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}, path


def test_no_view_is_known_by_its_name():
    """Red need not be axial, and a turned view calls itself "Reformat"."""
    for path, tree in TREES.items():
        if path.name in ("offscreen.py", "render.py"):
            continue  # make views of their own
        texts = {n.value for n in ast.walk(tree) if isinstance(n, ast.Constant)}
        assert not texts & {"Red", "Yellow", "Green"}, path
        assert "GetOrientation" not in set(names(tree)), path


def test_the_bridge_knows_no_qt():
    for path in (FOLDER / "SlideSAMBridge").rglob("*.py"):
        imported = {
            alias.name.split(".")[0]
            for node in ast.walk(TREES[path])
            if isinstance(node, ast.Import)
            for alias in node.names
        }
        assert not imported & {"qt", "ctk", "PySide6"}, path


SHOWN = {
    "setText", "setToolTip", "setTitle", "setPlaceholderText", "setStatusTip", "QLabel", "say",
    "QPushButton", "QCheckBox", "QGroupBox", "addLabeledOptionsWidget", "ValueError",
    "RuntimeError", "addItem", "setHeaderLabels", "information", "warning",
}  # fmt: skip


def test_every_sentence_can_be_translated():
    """What a person reads goes through `_`, where it is shown or where it is raised."""
    # Details that a translated sentence quotes, and what is raised on the worker, which must not
    # call the translator: `jobs` asks it for the whole sentence.
    parts = {"marks.py", "prompt_set.py", "library.py"}
    translated = 0
    for path, tree in TREES.items():
        if path.name in ("offscreen.py", "render.py", "selftest.py") or path.name in parts:
            continue  # not part of what a user of Slicer meets
        for node in ast.walk(tree):
            function = getattr(node, "func", None)
            called = getattr(function, "attr", getattr(function, "id", None))
            translated += called == "_"
            if called not in SHOWN:
                continue
            for argument in node.args[:1]:
                plain = isinstance(argument, (ast.Constant, ast.JoinedStr))
                text = ast.unparse(argument)
                words = plain and not isinstance(getattr(argument, "value", ""), (int, float))
                readable = words and any(c.isalpha() for c in text.strip("\"'f"))
                assert not readable, f"{path.name}:{node.lineno} {text}"
    assert translated > 100


def test_the_readme_names_every_parameter():
    from SlideSAMEffect.parameters import DEFAULTS, PREFERRED

    readme = (FOLDER.parent / "README.md").read_text()
    rows = [line for line in readme.splitlines() if line.startswith("| `")]
    named = {}
    for row in rows:
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        for name in cells[0].replace("`", "").split(", "):
            named[name] = cells[1].strip("`")
    for name, value in {**DEFAULTS, **dict.fromkeys(PREFERRED, "as in the module")}.items():
        assert named.get(name) == str(value), name
