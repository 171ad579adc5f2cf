"""Settings of a training that cannot be used: one sentence each, and nothing is begun."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from SlideSAMLib.errors import InputError
from SlideSAMLib.training.config import read_config, train_config
from Testing.cli_tools import assert_refused, run_command

ROOT = Path(__file__).parent.parent
WHOLE = ("steps", "batch", "accumulate", "shapes", "log_every", "lora_rank", "in_memory")
WHOLE += ("slab_uses",)
NAN, INF = float("nan"), float("inf")
WRONG = [
    *((name, value) for name in WHOLE for value in (0, -1, 1.5, "x", None, True, [1])),
    *(("seed", value) for value in (-1, 2**70, "abc", 1.5, None)),
    *(("data_processes", value) for value in (-1, 1.5, "x")),
    *(("minutes", value) for value in (0, -1, "x", NAN, INF, True)),
    *(("learning_rate", value) for value in (0, -1, "x", NAN, INF, None)),
    *(("weight_decay", value) for value in (-1, "x", NAN)),
    *(("save_minutes", value) for value in (-1, "x", INF)),
    *(("held_out", value) for value in (-0.1, 1, "x", NAN)),
    *(("warm_up", value) for value in ("x", 1.5, None)),
    *(("threads", value) for value in ("a", 1.5, None)),
    *(("average", value) for value in ("x", NAN, None)),
    *(("precision", value) for value in ("foo", 17, None, [])),
    # Windows and losses are float32: weights of another kind do not fit all parts of the networks.
    *(("precision", value) for value in ("bf16-true", "16-true", "64-true", "64", 64)),
    *((name, value) for name in ("output", "data", "start_from") for value in (5, [], "")),
    ("output", None),
    ("tensorboard", "x"),
    *(("sources", value) for value in (None, 5, ["shapes"], {"shapes": "x"}, {"shapes": INF})),
    *(("network", value) for value in (None, 5, "x")),
    *(("datasets", value) for value in (5, "x", [5])),
    *(("datasets", [{"path": "x", "channel": value}]) for value in (INF, 1.5, "x")),
    *(("datasets", [{"path": "x", "weight": value}]) for value in (INF, "x", None)),
    ("datasets", [{"path": "x", "unlabelled": 0.5}]),
    *(("select", {"manifest": "x", "steps": value}) for value in ("x", 1.5, 0, True)),
    *(("select", {"manifest": "x", "minutes": value}) for value in ("x", NAN, INF, -1)),
    (1, 2),
]


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_settings_of_another_kind_or_size_are_refused(tmp_path: Path, name, value) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump({"output": str(tmp_path / "run"), name: value}))
    with pytest.raises(InputError, match=str(name)):
        read_config(path)


LISTS = "&l0 [x, x]", *(f"&l{n} [{', '.join([f'*l{n - 1}'] * 10)}]" for n in range(1, 10))


@pytest.mark.parametrize(
    ("setting", "word"),
    [
        ("seed: *l9", "seed"),
        ("network: {widths: *l9}", "network"),
        ("network: {blocks: 1000000000}", "network"),
        ("datasets: [{path: *l9}]", "datasets"),
        ("datasets: [{path: x, labels: *l9}]", "datasets"),
        ("select: {steps: 1, manifest: *l9}", "select"),
        ("select: {steps: 1, manifest: x, ids: *l9}", "select"),
        ("select: {steps: 1, manifest: x, prompts: *l9}", "select"),
    ],
)
def test_lists_in_lists_without_end_are_refused(tmp_path: Path, setting: str, word: str) -> None:
    """Written out they are ten thousand million words."""
    path = tmp_path / "run.yaml"
    path.write_text(f"sources: {{a: [{', '.join(LISTS)}]}}\n{setting}\noutput: x\n")
    values = yaml.safe_load(path.read_text())
    del values["sources"]
    with pytest.raises(InputError, match=f", {word} ") as caught:
        train_config(values, path)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("content", [b"output: \xff\xfe", b"[" * 100_000, b"output: 2001-99-99"])
def test_files_that_are_no_yaml(tmp_path: Path, content: bytes, capsys) -> None:
    path = tmp_path / "run.yaml"
    path.write_bytes(content)
    assert_refused(run_command(capsys, "train", path), "run.yaml cannot be read")


def test_a_configuration_that_is_not_there(tmp_path: Path, capsys) -> None:
    path = tmp_path / "run.yaml"
    said = "run.yaml cannot be read: No such file or directory."
    assert_refused(run_command(capsys, "train", path), said)


def test_numbers_that_yaml_takes_for_texts_are_explained(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("output: run\nlearning_rate: 2e-4\n")
    with pytest.raises(InputError, match=r"not '2e-4' as a text: write 0\.000200"):
        read_config(path)


@pytest.mark.parametrize("output", ["file", "file/run"])
def test_an_output_that_is_a_file(tmp_path: Path, output: str) -> None:
    (tmp_path / "file").write_text("")
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump({"output": str(tmp_path / output)}))
    with pytest.raises(InputError, match=r"output cannot be a folder: .*file is a file"):
        read_config(path)


def test_what_people_write_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(
        "output: run\nminutes: 5\nlearning_rate: 1\nweight_decay: 0\nprecision: 16\nthreads: 2\n"
        "save_minutes: 0\naverage: 0\nsources: {shapes: 1}\nstart_from: null\nheld_out: 0\n"
    )
    assert read_config(path).minutes == 5
    for recipe in sorted((ROOT / "Resources" / "Models").glob("*.yaml")):
        assert read_config(recipe).steps > 0


@pytest.mark.parametrize(
    "network",
    [{"foo": 1}, {"widths": [1]}, {"widths": [-1] * 4}, {"widths": []}, {"heads": 0}, {"heads": 5}],
)
def test_networks_that_cannot_be_built(tmp_path: Path, capsys, network: dict) -> None:
    path = tmp_path / "run.yaml"
    settings = {"output": str(tmp_path / "run"), "network": network, "sources": {"shapes": 1}}
    path.write_text(yaml.safe_dump(settings))
    assert_refused(run_command(capsys, "train", path), "The setting network")
    assert not (tmp_path / "run").exists()
