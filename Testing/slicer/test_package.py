"""The extension as CMake installs it: complete, and importable from its own folder.

Slicer's macros are replaced by small ones that copy files where Slicer's would.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slicer
ROOT = Path(__file__).resolve().parents[2]
LIB = "lib/Slicer-5.12/qt-scripted-modules"

PROJECT = """
cmake_minimum_required(VERSION 3.20)
project(Extension NONE)
set(Slicer_QTSCRIPTEDMODULES_LIB_DIR "@LIB@")
set(Slicer_INSTALL_QTSCRIPTEDMODULES_LIB_DIR "@LIB@")
set(BUILD_TESTING ON)

macro(copy_files source files)
  foreach(file ${files})
    if(NOT EXISTS ${source}/${file})
      message(FATAL_ERROR "nonexistent file ${file}")
    endif()
    get_filename_component(folder ${file} DIRECTORY)
    install(FILES ${source}/${file} DESTINATION "@LIB@/${folder}")
  endforeach()
endmacro()

macro(ctkMacroCompilePythonScript)
  cmake_parse_arguments(
    MY "NO_INSTALL_SUBDIR" "TARGET_NAME;SOURCE_DIR;DESTINATION_DIR;INSTALL_DIR" "SCRIPTS;RESOURCES"
    ${ARGN})
  if(MY_UNPARSED_ARGUMENTS OR NOT MY_NO_INSTALL_SUBDIR)
    message(FATAL_ERROR "ctkMacroCompilePythonScript: ${ARGN}")
  endif()
  copy_files(${MY_SOURCE_DIR} "${MY_SCRIPTS};${MY_RESOURCES}")
endmacro()

macro(slicerMacroBuildScriptedModule)
  cmake_parse_arguments(MY "WITH_GENERIC_TESTS" "NAME" "SCRIPTS;RESOURCES" ${ARGN})
  if(MY_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "slicerMacroBuildScriptedModule: ${MY_UNPARSED_ARGUMENTS}")
  endif()
  copy_files(${CMAKE_CURRENT_SOURCE_DIR} "${MY_SCRIPTS};${MY_RESOURCES}")
endmacro()

macro(slicer_add_python_unittest)
  message(STATUS "unittest ${ARGN}")
endmacro()

add_subdirectory(@ROOT@/SlideSAM SlideSAM)
"""

IMPORT = """
import sys
from pathlib import Path

folder = Path(sys.argv[1])
sys.path.append(sys.argv[2])
sys.path.append(str(folder))  # only so that the host finds the installed bridge
from Testing.host import headless, module_host, pythonqt_host

sys.path.remove(sys.argv[2])
pythonqt_host.install()
session = headless.start()
slidesam, _ = module_host.load(folder / "SlideSAM.py")
import slicer

slicer.app.startup()
slidesam.SlideSAMTest().runTest()
import SlideSAMBridge
import SlideSAMEffect
import SlideSAMLib

effect = slicer.qSlicerSegmentEditorEffectFactory.instance().prototypes["Slide-SAM"]
assert Path(effect.self().clone().self().helpText.__code__.co_filename).is_relative_to(folder)
for package in (SlideSAMLib, SlideSAMBridge, SlideSAMEffect):
    assert Path(package.__file__).is_relative_to(folder), package.__file__
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    if shutil.which("cmake") is None:
        pytest.skip("cmake is not installed")
    folder = tmp_path_factory.mktemp("extension")
    text = PROJECT.replace("@LIB@", LIB).replace("@ROOT@", ROOT.as_posix())
    (folder / "CMakeLists.txt").write_text(text)
    for command in (
        ["cmake", "-S", folder, "-B", folder / "build"],
        ["cmake", "--install", folder / "build", "--prefix", folder / "out"],
    ):
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        if "-S" in command:
            assert "unittest SCRIPT;SlideSAM.py" in done.stdout
    return folder / "out" / LIB


def test_nothing_is_forgotten(installed):
    expected = {
        path.relative_to(base).as_posix()
        for base, pattern in (
            (ROOT / "SlideSAM", "**/*.py"),
            (ROOT / "SlideSAM", "Resources/**/*.*"),
            (ROOT, "SlideSAMLib/**/*.*"),
            (ROOT, "Resources/Models/*"),
        )
        for path in base.glob(pattern)
        if path.suffix != ".pyc" and path.is_file()
    } | {"SlideSAMLib/LICENSE"}
    found = {p.relative_to(installed).as_posix() for p in installed.rglob("*") if p.is_file()}
    assert found == expected


def test_installed_extension_runs_from_its_own_folder(installed):
    done = subprocess.run(
        [sys.executable, "-c", IMPORT, str(installed), str(ROOT)],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=installed,
    )
    assert done.returncode == 0, done.stderr
