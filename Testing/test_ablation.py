"""Ablations: variants read from a file, run beside the default, and compared in one table."""

from __future__ import annotations

import csv
import json
import pickle
from dataclasses import dataclass, fields, replace
from pathlib import Path

import pytest

from SlideSAMLib.cli.main import main
from SlideSAMLib.errors import InputError
from SlideSAMLib.evaluation import evaluate
from SlideSAMLib.evaluation.ablation_report import as_markdown, compare, compare_all
from SlideSAMLib.evaluation.runner import ModelSource
from SlideSAMLib.evaluation.variants import changed_model, read_variants
from SlideSAMLib.models import register_model
from SlideSAMLib.sliding.slide_types import SlideSettings
from Testing.evaluation_data import FIRST, LAST, SLICES, memory_case, write_manifest
from Testing.fakes import ThresholdModel

ABLATIONS = Path(__file__).parent / "Benchmarks" / "ablations.yaml"
THICK = LAST - FIRST + 1


@dataclass(frozen=True)
class OwnSettings:
    threshold: float = 50.0


class TunedModel(ThresholdModel):
    """A model with settings of its own."""

    def __init__(self, settings: OwnSettings | None = None) -> None:
        self.settings = settings or OwnSettings()
        super().__init__(threshold=self.settings.threshold)

    def with_settings(self, settings: OwnSettings) -> TunedModel:
        return TunedModel(settings)


@pytest.fixture
def registered() -> str:
    register_model("tuned-for-tests", lambda device, precision: TunedModel())
    return "tuned-for-tests"


VARIANTS = [
    {"name": "Published scheme", "slide": {"scheme": "reference"}},
    {"name": "never content", "slide": {"min_quality": 1}},
    {"name": "blind", "model": {"threshold": 1000}},
]


def write_variants(folder: Path, variants: object = None) -> Path:
    path = folder / "variants.json"
    path.write_text(json.dumps({"variants": VARIANTS if variants is None else variants}))
    return path


# The file


def test_the_project_s_own_ablations_can_be_read():
    found = {variant.name: variant for variant in read_variants(ABLATIONS)}
    assert next(iter(found)) == "default"
    off = found["all stop rules off"].slide_settings()
    for rule in (f.name for f in fields(SlideSettings) if f.name.startswith(("min_", "max_"))):
        value = getattr(off, rule)
        assert value == (float("inf") if rule.startswith("max_") else 0), rule
    assert all(
        v.slide_settings() != SlideSettings() or v.model for n, v in found.items() if n != "default"
    )


def test_the_built_in_model_knows_the_changes_of_the_project_s_ablations():
    from SlideSAMLib.builtin.requests import BuiltinSettings

    changes = [variant.model for variant in read_variants(ABLATIONS) if variant.model]
    assert changes
    for change in changes:
        assert replace(BuiltinSettings(), **change) != BuiltinSettings()


def test_variants_with_a_byte_order_mark(tmp_path):
    path = write_variants(tmp_path)
    names = [variant.name for variant in read_variants(path)]
    path.write_text(path.read_text(), encoding="utf-8-sig")
    assert [variant.name for variant in read_variants(path)] == names


@pytest.mark.parametrize(
    ("variants", "message"),
    [
        ([], "list `variants`"),
        ([{"name": "a"}], "needs a `name` and settings"),
        ([{"slide": {"use_masks": False}}], "needs a `name` and settings"),
        ([{"name": "a", "slides": {"use_masks": False}}], "needs a `name` and settings"),
        ([{"name": "a", "slide": {"use_mask": False}}], "no sliding setting 'use_mask'; there are"),
        ([{"name": "a", "slide": {"use_masks": 0}}], "use_masks must be a truth value"),
        ([{"name": "a", "slide": {"outer_weight": "none"}}], "outer_weight must be a number"),
        ([{"name": "a", "slide": {"outer_weight": True}}], "outer_weight must be a number"),
        ([{"name": "a", "slide": {"outer_weight": -1}}], "Variant 'a'.*0 or greater"),
        ([{"name": "A!", "slide": {"use_masks": False}}] * 2, "names 'A!' twice"),
        ([{"name": "Default", "slide": {"use_masks": False}}], "twice, or names too much"),
        ([{"name": "-", "slide": {"use_masks": False}}], "no letter"),
    ],
)
def test_what_is_no_variant_is_refused(tmp_path, variants, message):
    with pytest.raises(InputError, match=message):
        read_variants(write_variants(tmp_path, variants))


@pytest.mark.parametrize(("name", "text"), [("v.json", "{"), ("v.yaml", "a: [1"), ("v.yml", "3")])
def test_a_file_that_is_neither_yaml_nor_json(tmp_path, name, text):
    path = tmp_path / name
    with pytest.raises(InputError, match="cannot be read"):
        read_variants(path)
    path.write_text(text)
    with pytest.raises(InputError, match=r"are not JSON|are not YAML|must be an object"):
        read_variants(path)


def test_a_model_without_settings_says_so():
    with pytest.raises(InputError, match=r"threshold has no settings of its own.*factor"):
        changed_model(ThresholdModel(), {"factor": 2})
    with pytest.raises(InputError, match="no model's setting 'factor'; there are: threshold"):
        changed_model(TunedModel(), {"factor": 2})
    assert changed_model(TunedModel(), {"threshold": 7}).settings.threshold == 7


def test_the_changes_travel_to_other_processes():
    source = pickle.loads(pickle.dumps(ModelSource("builtin", changes={"factor": 3.2})))
    assert source.load().settings.factor == 3.2


# The comparison


def test_differences_are_those_of_the_structures_that_both_did():
    """The default leaks; the variant knows the ends of one structure only."""
    cases = [memory_case(leak=True, case_id="one"), memory_case(case_id="two")]
    default = evaluate(cases, ThresholdModel(threshold=50), protocol="full", limit=1)
    better = [replace(r, metrics={"dice": 1.0}) for r in default]
    low = 2 * THICK / (THICK + SLICES)
    (same,) = compare("all", better, default)
    assert (same.better, same.worse, same.structures) == (1, 0, 2)
    assert same.mean == 1.0 and same.difference == pytest.approx((1 - low) / 2)
    (fewer,) = compare("one", better[:1], default)
    assert (fewer.structures, fewer.cases) == (1, 1)
    assert fewer.difference == pytest.approx(1 - low)
    assert compare("none", [], default) == []


def test_a_protocol_that_a_variant_could_not_do_stays_empty():
    default = evaluate([memory_case()], ThresholdModel(threshold=50), limit=1)
    full = [result for result in default if result.protocol == "full"]
    table = as_markdown(compare_all({"default": default, "half": full}), {"seed": 0})
    assert "| half | 1 | **1.000** | +0.000 | 0 / 0 | - | - | - | 0.0 / 0.0 |" in table


# The command


def test_command_writes_one_table(registered, tmp_path, capsys):
    manifest, output = write_manifest(tmp_path), tmp_path / "out"
    words = ["ablate", str(manifest), "--variants", str(write_variants(tmp_path))]
    words += ["--model", registered, "--output", str(output), "--prompt", "point"]
    assert main(words) == 0
    assert "blind, full" in capsys.readouterr().out
    with (output / "ablation.csv").open() as stream:
        rows = {(r["variant"], r["protocol"]): r for r in csv.DictReader(stream)}
    assert len(rows) == 4 * 2
    default, blind = rows["default", "full"], rows["blind", "full"]
    assert (default["structures"], default["better"], default["worse"]) == ("4", "0", "0")
    assert float(default["mean"]) == pytest.approx((1 + (2 / 3 + 1) / 2) / 2, abs=1e-6)
    assert (float(blind["mean"]), blind["worse"]) == (0.0, "4")
    assert float(blind["difference"]) == pytest.approx(-float(default["mean"]), abs=2e-6)
    # No window but the prompted one is good enough: the block goes on for ten slices.
    assert float(rows["never content", "extent"]["missed"]) > 2
    assert float(rows["never content", "extent"]["difference"]) < -0.3

    report = (output / "ablation.md").read_text()
    assert "| Dice, full | difference | better / worse | Dice, extent |" in report
    assert "| default | 4 | **0.917** | - | - |" in report
    assert "command line | `slidesam ablate" in report
    content = json.loads((output / "ablation.json").read_text())
    assert [variant["name"] for variant in content["variants"]][3] == "blind"
    assert len(content["dice"]["default"]) == 4 * 2


def test_what_the_published_scheme_refuses_is_left_out():
    """The prompt is on the block's first slice, which here is the volume's, too."""
    case = memory_case()
    first = replace(
        case,
        content=replace(
            case.content,
            volume=case.content.volume[FIRST:],
            labels=case.content.labels[FIRST:],
        ),
    )
    settings = SlideSettings(scheme="reference")
    with pytest.raises(InputError, match="cannot start"):
        evaluate([first], TunedModel(), protocol="full", settings=settings)
    kept = evaluate([first], TunedModel(), protocol="full", settings=settings, skip_refused=True)
    assert [result.value for result in kept] == [2]


def test_resume_computes_only_what_is_missing(registered, tmp_path, capsys):
    manifest, output = write_manifest(tmp_path), tmp_path / "out"
    words = ["ablate", str(manifest), "--variants", str(write_variants(tmp_path))]
    words += ["--model", registered, "--output", str(output), "--protocol", "full", "--limit", "1"]
    assert main([*words, "--only", "blind"]) == 0
    files = sorted((output / "variants").iterdir())
    assert [file.name for file in files] == ["blind.jsonl", "default.jsonl"]
    before = [file.read_bytes() for file in files]
    assert main([*words, "--resume"]) == 0
    assert [file.read_bytes() for file in files] == before
    assert len(list((output / "variants").iterdir())) == 4
    capsys.readouterr()
    assert main([*words, "--resume", "--seed", "3"]) == 2
    assert "another seed" in capsys.readouterr().err


def test_earlier_results_are_not_replaced(registered, tmp_path, capsys):
    output = tmp_path / "out"
    words = ["ablate", str(write_manifest(tmp_path)), "--variants", str(write_variants(tmp_path))]
    words += ["--model", registered, "--output", str(output), "--protocol", "full", "--limit", "1"]
    assert main([*words, "--only", "blind"]) == 0
    before = {path: path.read_bytes() for path in output.rglob("*.*")}
    capsys.readouterr()
    for others in ([], ["--only", "never content"]):  # the default is in all
        assert main([*words, *others]) == 2
        assert "give --resume to go on with them" in capsys.readouterr().err
    # One of four files is of other settings: nothing is written to the other three.
    assert main([*words, "--resume", "--seed", "3"]) == 2
    assert {path: path.read_bytes() for path in output.rglob("*.*")} == before


@pytest.mark.parametrize(
    "change",
    [
        ["--variants", "missing.yaml"],
        ["--only", "nothing"],
        ["--cases", "nothing"],
        ["--protocol", "clicks"],
    ],
)
def test_wrong_use_writes_nothing(registered, tmp_path, capsys, change):
    output = tmp_path / "out"
    words = ["ablate", str(write_manifest(tmp_path)), "--output", str(output)]
    words += ["--model", registered, "--variants", str(write_variants(tmp_path))]
    assert main([*words, *change]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert not output.exists()


def test_names_with_commas_in_them_are_told_apart(registered, tmp_path, capsys):
    variants = write_variants(tmp_path, [{"name": "wide, twice", "slide": {"use_masks": False}}])
    words = ["ablate", str(write_manifest(tmp_path)), "--output", str(tmp_path / "out")]
    words += ["--model", registered, "--variants", str(variants), "--only", "wide"]
    assert main(words) == 2
    assert "'default', 'wide, twice'" in capsys.readouterr().err


def test_a_variant_that_the_model_cannot_take_writes_nothing(registered, tmp_path, capsys):
    path = write_variants(tmp_path, [{"name": "wide", "model": {"factor": 3}}])
    output = tmp_path / "out"
    words = ["ablate", str(write_manifest(tmp_path)), "--output", str(output)]
    assert main([*words, "--model", registered, "--variants", str(path)]) == 2
    assert "Variant 'wide': There is no model's setting 'factor'" in capsys.readouterr().err
    assert not output.exists()


@pytest.mark.parametrize("text", ["[" * 100_000, "9" * 5000, "[2001-99-99]"])
@pytest.mark.parametrize("name", ["variants.json", "variants.yaml"])
def test_variants_that_are_too_deep_or_too_large_are_refused(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=r"are not (JSON|YAML)"):
        read_variants(tmp_path / name)
