"""What Slicer's start-up loads with the module."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "Benchmarks" / "module_import.py"


@pytest.mark.slicer
def test_start_up_loads_nothing_heavy() -> None:
    pytest.importorskip("slicer")
    pytest.importorskip("PySide6")
    command = [sys.executable, str(SCRIPT), "--child"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found = json.loads(done.stdout)
    assert found["torch"] is False
    assert found["heavy"] == []
    assert found["import_s"] > 0
