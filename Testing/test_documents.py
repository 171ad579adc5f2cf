"""The documents beside what they speak of: links, files, options, settings, buttons."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import pytest

from SlideSAMLib.cli.main import COMMANDS, build_parser

ROOT = Path(__file__).resolve().parents[1]
NAMES = (
    "README.md",
    "Resources/Fine-tuning.md",
    "Resources/Training.md",
    "Resources/Models/README.md",
    "Testing/Benchmarks/README.md",
    "Testing/Data/reference/README.md",
)
FOREIGN = {"--nproc-per-node"}  # of torchrun
FOLDERS = ("Resources", "scripts", "SlideSAM", "SlideSAMLib", "Testing")
# Slicer's own words, and the name of the sample data.
SLICERS = {
    "Edit > Application Settings > Modules > Additional module paths",
    "SlideSAMPhantom",
    "View > Extensions Manager",
}


def anchors(path: Path) -> set[str]:
    """What GitHub makes of the headings of a document."""
    found = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in found}


def options(parser: argparse.ArgumentParser) -> set[str]:
    """All options of a command and of what stands below it."""
    found: set[str] = set()
    for action in parser._actions:
        found |= set(action.option_strings)
        if isinstance(action, argparse._SubParsersAction):
            for sub in action.choices.values():
                found |= options(sub)
    return found


@pytest.mark.parametrize("name", NAMES)
def test_every_link_leads_somewhere(name: str) -> None:
    path = ROOT / name
    for link in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        if link.startswith("https://"):
            continue
        file, _, anchor = link.partition("#")
        target = path.parent / file if file else path
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("name", NAMES)
def test_every_file_of_the_repository_that_is_named_is_there(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    named = re.findall(rf"(?<![\w./])(?:{'|'.join(FOLDERS)})/[\w./-]*\w", text)
    weights = "SlideSAMLib/weights"  # in a wheel
    assert [path for path in named if path != weights and not (ROOT / path).exists()] == []


@pytest.mark.parametrize("name", NAMES)
def test_every_option_that_is_named_is_one(name: str) -> None:
    known = FOREIGN.union(*(options(build_parser(command)) for command in COMMANDS))
    text = (ROOT / name).read_text(encoding="utf-8")
    assert set(re.findall(r"(?<![\w|-])--[a-z][a-z-]*", text)) <= known


def test_buttons_are_called_what_they_are_called() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    used = text[text.index("## Install") : text.index("## From Slicer's Python console")]
    named = re.findall(r"(?<!\*)\*([^*\n]+)\*(?!\*)", re.sub(r"\n *", " ", used))
    sources = "".join(path.read_text() for path in (ROOT / "SlideSAM").rglob("*.py"))
    texts = re.findall(r'\b_\(\s*"([^"]+)"', sources)
    shown = {text.removesuffix(" ...").removesuffix(":") for text in texts}
    assert named and sorted(set(named) - shown - SLICERS) == []


def test_the_guide_names_settings_that_exist() -> None:
    pytest.importorskip("yaml")
    from dataclasses import fields

    from SlideSAMLib.training.config import DatasetConfig, SelectConfig, TrainConfig
    from SlideSAMLib.training.finetune import OWN

    known = {
        *OWN,
        *(f.name for kind in (DatasetConfig, SelectConfig, TrainConfig) for f in fields(kind)),
    }
    for name in ("Fine-tuning.md", "Training.md"):
        text = (ROOT / "Resources" / name).read_text(encoding="utf-8")
        tables = re.findall(r"^\| Setting.*\n\|[-|]+\n((?:\|.*\n)+)", text, re.MULTILINE)
        assert tables
        cells = [row.split("|")[1] for table in tables for row in table.splitlines()]
        assert {word for cell in cells for word in re.findall(r"`(\w+)`", cell)} <= known
