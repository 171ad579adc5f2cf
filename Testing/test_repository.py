"""The repository as Slicer's extension index and a fresh checkout see it."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
RAW = "https://raw.githubusercontent.com/SlideSAM/SlicerSlideSAM/main/"
# slicer-extension-catalog-entry-schema-v1.0.1
REQUIRED = {"$schema", "category", "scm_url"}
OPTIONAL = {"build_dependencies", "build_subdirectory", "enabled", "scm_revision", "tier"}
PAPER = "https://proceedings.mlr.press/v250/quan24a.html"
# What Slicer brings; anything else may only be imported inside functions.
SLICERS_OWN = {"SegmentEditorEffects", "slicer", "vtk", "qt", "ctk", "SimpleITK", "numpy", "scipy"}


def cmake_value(name: str) -> str:
    """The value of `set(NAME "...")`, which must stand on one line in double quotes."""
    found = re.findall(rf'^set\({name} "([^"\n]*)"\)$', read("CMakeLists.txt"), re.MULTILINE)
    assert len(found) == 1, f"{name} must be set once, on one line, in double quotes"
    return found[0]


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def tracked_files() -> list[Path]:
    """Files of the repository; skips where the checkout is no git repository."""
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in done.stdout.splitlines() if (ROOT / name).is_file()]


def test_catalogue_entry() -> None:
    raw = (ROOT / "SlideSAM.json").read_bytes()
    assert b"\r" not in raw
    entry = json.loads(raw)
    assert set(entry) >= REQUIRED
    assert set(entry) <= REQUIRED | OPTIONAL
    assert entry["category"] == "Segmentation"
    assert entry["build_dependencies"] == ["PyTorch"]
    assert entry["tier"] == 1
    assert entry["$schema"].endswith("slicer-extension-catalog-entry-schema-v1.0.1.json#")
    repository = entry["scm_url"].rsplit("/", 1)[-1]
    assert repository.startswith("Slicer") and repository.endswith(".git")


def test_names_agree() -> None:
    (project,) = re.findall(r"^project\((\w+)\)$", read("CMakeLists.txt"), re.MULTILINE)
    assert project == "SlideSAM"
    assert not project.lower().startswith("slicer")
    assert (ROOT / f"{project}.json").is_file()
    assert (ROOT / f"{project}.s4ext").is_file()


def test_extension_metadata_in_cmake() -> None:
    homepage = json.loads(read("SlideSAM.json"))["scm_url"].removesuffix(".git")
    assert cmake_value("EXTENSION_HOMEPAGE") == homepage
    assert cmake_value("EXTENSION_DEPENDS") == "PyTorch"
    assert cmake_value("EXTENSION_CONTRIBUTORS")
    assert 40 < len(cmake_value("EXTENSION_DESCRIPTION")) < 300
    urls = [
        *cmake_value("EXTENSION_ICONURL").split(),
        *cmake_value("EXTENSION_SCREENSHOTURLS").split(),
    ]
    assert len(urls) >= 2
    for url in urls:
        assert url.startswith(RAW) and url.endswith((".png", ".jpg", ".gif"))
    assert "EXTENSION_CATEGORY" not in read("CMakeLists.txt")  # it stands in the JSON file


def test_cmake_need_not_be_newer_than_the_oldest_slicer_asks_for() -> None:
    first = read("CMakeLists.txt").splitlines()[0]
    found = re.fullmatch(r"cmake_minimum_required\(VERSION (\d+)\.(\d+)\.(\d+)\.\.\..*\)", first)
    assert found is not None
    assert tuple(map(int, found.groups())) <= (3, 20, 6)  # of Slicer 5.10 and its extensions


def test_setuptools_must_know_how_the_licence_is_given() -> None:
    """The name of a licence as a text is refused before setuptools 77."""
    (need,) = tomllib.loads(read("pyproject.toml"))["build-system"]["requires"]
    oldest = tuple(map(int, need.removeprefix("setuptools>=").split(".")))
    assert oldest >= (77, 0, 3)


def test_icon_and_screenshots_are_in_the_repository() -> None:
    urls = f"{cmake_value('EXTENSION_ICONURL')} {cmake_value('EXTENSION_SCREENSHOTURLS')}".split()
    missing = [url for url in urls if not (ROOT / url.removeprefix(RAW)).is_file()]
    assert not missing


def test_s4ext_says_the_same_as_cmake() -> None:
    lines = [line.split(None, 1) for line in read("SlideSAM.s4ext").splitlines()]
    fields = {words[0]: words[1].strip() for words in lines if len(words) == 2 and words[0] != "#"}
    entry = json.loads(read("SlideSAM.json"))
    assert fields["scm"] == "git"
    assert fields["scmurl"] == entry["scm_url"]
    assert fields["scmrevision"] == entry["scm_revision"]
    assert fields["category"] == entry["category"]
    assert fields["depends"] == cmake_value("EXTENSION_DEPENDS")
    assert fields["homepage"] == cmake_value("EXTENSION_HOMEPAGE")
    assert fields["contributors"] == cmake_value("EXTENSION_CONTRIBUTORS")
    assert fields["description"] == cmake_value("EXTENSION_DESCRIPTION")
    assert fields["iconurl"] == cmake_value("EXTENSION_ICONURL")
    assert fields["screenshoturls"] == cmake_value("EXTENSION_SCREENSHOTURLS")


def test_licence() -> None:
    text = read("LICENSE")
    assert "Apache License" in text and "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text
    assert tomllib.loads(read("pyproject.toml"))["project"]["license"] == "Apache-2.0"


def test_readme_has_what_reviewers_ask_for() -> None:
    text = read("README.md")
    for command in ("bash scripts/demo", "bash scripts/test"):
        assert command in text
    for heading in ("Tutorial", "Models and licences", "Privacy", "Limits", "How to cite"):
        assert f"\n## {heading}\n" in text
    assert "not for clinical use" in text.lower()
    assert f"[PMLR 250:1179-1195]({PAPER})" in text


def test_versions_agree() -> None:
    import SlideSAMLib

    assert tomllib.loads(read("pyproject.toml"))["project"]["version"] == SlideSAMLib.__version__


def test_every_package_is_listed() -> None:
    settings = tomllib.loads(read("pyproject.toml"))["tool"]["setuptools"]
    folders = {path.parent for path in (ROOT / "SlideSAMLib").rglob("__init__.py")}
    found = {".".join(folder.relative_to(ROOT).parts) for folder in folders}
    assert found | set(settings["package-dir"]) == set(settings["packages"])


PACKAGES = sorted(
    {
        path.parent
        for folder in ("SlideSAM", "SlideSAMLib", "Testing")
        for path in (ROOT / folder).rglob("__init__.py")
    }
)


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)
def test_large_packages_begin_with_an_overview_of_their_modules(package: Path) -> None:
    files = {path.stem for path in package.glob("*.py") if not path.name.startswith("test_")}
    folders = {path.parent.name for path in package.glob("*/__init__.py")}
    modules = sorted((files | folders) - {"__init__"})
    text = ast.get_docstring(ast.parse((package / "__init__.py").read_text())) or ""
    named = sorted(set(modules) & set(re.findall(r"`(\w+)`", text)))
    assert len(modules) < 10 or named == modules
    for name in named:
        assert text.count(f"`{name}`") == 1, name


def test_every_setting_of_a_training_is_explained() -> None:
    pytest.importorskip("yaml")
    from dataclasses import fields

    from SlideSAMLib.training.config import TrainConfig

    words = set(re.findall(r"\w+", TrainConfig.__doc__))
    assert not {field.name for field in fields(TrainConfig)} - words


def test_no_large_files_in_the_repository() -> None:
    sizes = {path: path.stat().st_size for path in tracked_files()}
    assert max(sizes.values()) < 26e6
    assert sum(sizes.values()) < 90e6  # the index takes repositories up to 100 MB


def test_the_library_knows_nothing_of_slicer() -> None:
    for path in (ROOT / "SlideSAMLib").rglob("*.py"):
        names = {name for node in ast.walk(ast.parse(path.read_text())) for name in imported(node)}
        assert not names & {"slicer", "vtk", "qt", "ctk"}, path


WORDS = {"errors", "boxes", "patches"}
ROOMS = {  # what each may import of the library, beside itself
    "compute": {"errors"},
    "files": {"errors"},
    "images": {"errors"},
    "sliding": WORDS | {"intensity", "prompts", "protocol", "stack", "window"},
    "builtin": WORDS | {"compute", "files", "protocol", "rehearsal"},
    "sam": WORDS | {"catalogue", "compute", "files", "protocol", "rehearsal"},
}
COMMANDS = {"__main__", "benchmark", "cli", "demo", "evaluation", "training"}
BRIDGE_WORDS = {"text", "watch", "checks"}
BRIDGE_ROOMS = {
    "setup": {"text"},
    "scene": BRIDGE_WORDS | {"setup"},
    "tasks": BRIDGE_WORDS | {"setup", "scene"},
    "drawing": BRIDGE_WORDS | {"scene"},
    "effect": BRIDGE_WORDS | {"scene", "tasks", "drawing"},
    "pictures": set(),
}


def test_imports_within_the_library_run_one_way() -> None:
    for path, room, rooms in imports_by_room("SlideSAMLib"):
        if room not in COMMANDS:
            assert not rooms & COMMANDS, f"{path}: {rooms & COMMANDS}"
            assert rooms <= ROOMS.get(room, rooms), f"{path}: {rooms - ROOMS[room]}"


def test_imports_within_the_bridge_run_one_way() -> None:
    for path, room, rooms in imports_by_room("SlideSAM/SlideSAMBridge"):
        if room in BRIDGE_WORDS:
            assert rooms <= BRIDGE_WORDS, f"{path}: {rooms - BRIDGE_WORDS}"
        assert rooms <= BRIDGE_ROOMS.get(room, rooms), f"{path}: {rooms - BRIDGE_ROOMS[room]}"


def imports_by_room(package: str) -> Iterator[tuple[Path, str, set[str]]]:
    """Each file of a package, the room it lies in, and what it imports of the other rooms."""
    folder = ROOT / package
    for path in folder.rglob("*.py"):
        room = path.relative_to(folder).with_suffix("").parts[0]
        nodes = ast.walk(ast.parse(path.read_text()))
        yield (
            path,
            room,
            {name for node in nodes for name in rooms_named(node, path, folder)} - {room},
        )


def rooms_named(node: ast.AST, path: Path, package: Path) -> set[str]:
    """The package's own modules and rooms that a relative import of a file names."""
    if not isinstance(node, ast.ImportFrom) or not node.level:
        return set()
    folder = path.parents[node.level - 1].relative_to(package).parts
    names = [node.module] if node.module else [alias.name for alias in node.names]
    return {(*folder, *name.split("."))[0] for name in names}


@pytest.mark.parametrize("package", ["SlideSAMLib", "SlideSAM/SlideSAMBridge"])
def test_no_module_imports_itself_by_way_of_others(package: str) -> None:
    """Nor for types alone, or inside a function."""
    graph = {
        path: {file for node in ast.walk(ast.parse(path.read_text())) for file in files(node, path)}
        for path in (ROOT / package).rglob("*.py")
    }
    assert any(graph.values())
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the modules


def files(node: ast.AST, path: Path) -> set[Path]:
    """The files of the modules that a relative import of a file names."""
    if not isinstance(node, ast.ImportFrom) or not node.level:
        return set()
    place = path.parents[node.level - 1].joinpath(*(node.module or "").split("."))
    places = [place, *(place / alias.name for alias in node.names)]
    return {file for each in places if (file := each.with_suffix(".py")).is_file()}


def test_slicer_loads_no_foreign_package_at_file_scope() -> None:
    own = {"SlideSAM", "SlideSAMBridge", "SlideSAMEffect", "SlideSAMLib", "SlideSAMPanel"}
    for path in (ROOT / "SlideSAM").rglob("*.py"):
        tree = ast.parse(path.read_text())
        names = {name for node in tree.body for name in imported(node)}
        foreign = names - own - SLICERS_OWN - set(sys.stdlib_module_names)
        assert not foreign, f"{path}: {foreign}"


def imported(node: ast.AST) -> set[str]:
    """Top-level names of the packages that an import statement loads."""
    if isinstance(node, ast.Import):
        return {alias.name.split(".")[0] for alias in node.names}
    if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
        return {node.module.split(".")[0]}
    return set()


def test_ci_runs_the_readmes_test_command() -> None:
    assert "\nbash scripts/test\n" in read(".ci/run")
    scripts = ("setup", "demo", "test", "benchmark-gpu", "measure-model", "train-gpu")
    for script in (*(f"scripts/{name}" for name in scripts), ".ci/run"):
        assert os.access(ROOT / script, os.X_OK)
        done = subprocess.run(["bash", "-n", str(ROOT / script)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_wheel_carries_code_and_models(tmp_path: Path) -> None:
    pytest.importorskip("setuptools", reason="setuptools builds the wheel without a network")
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "SlideSAMLib", "Resources"):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, checkout / name)
        else:
            shutil.copy(source, checkout / name)
    stand_in = checkout / "Resources" / "Models" / "stand-in.safetensors"
    stand_in.write_bytes(b"model")
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "-w", str(tmp_path), str(checkout)], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "SlideSAMLib/weights/stand-in.safetensors" in names
    assert "SlideSAMLib/cli/main.py" in names
    assert {name.split("/")[0].split("-")[0].lower() for name in names} == {
        "slidesamlib",
        "slidesam",
    }
    entry = zipfile.ZipFile(wheel).read(
        next(name for name in names if name.endswith("entry_points.txt"))
    )
    assert b"slidesam = SlideSAMLib.cli.main:entry" in entry
