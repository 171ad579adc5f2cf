"""Fine-tuning: data sets of one's own, the command, its model and its card, and the guide."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import yaml

pytest.importorskip("lightning_fabric", reason="training needs the extra 'train'")

from SlideSAMLib import load_model
from SlideSAMLib.builtin.network import BuiltinNetwork
from SlideSAMLib.builtin.weights import read_network, write_weights
from SlideSAMLib.catalogue import CATALOGUE
from SlideSAMLib.errors import InputError
from SlideSAMLib.training import mixture
from SlideSAMLib.training.builtin_task import DECODER
from SlideSAMLib.training.config import DatasetConfig, TrainConfig
from SlideSAMLib.training.datasets import (
    Dataset,
    Shelf,
    held_out_cases,
    labelled_case,
    read_dataset,
    read_nnunet,
    split,
)
from SlideSAMLib.training.finetune import read_finetune_config, slug
from SlideSAMLib.training.mixture import Mixture
from SlideSAMLib.training.sources import scaled
from Testing.cli_tools import assert_refused, noisy_ball, run_command, write_image

GUIDE = Path(__file__).parent.parent / "Resources" / "Fine-tuning.md"
SMALL = {"widths": [8, 16, 16, 32], "depths": [0, 1, 1, 1], "blocks": 1, "heads": 4}
LABELS = {"background": 0, "liver": 1, "tumour": 2}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An nnU-Net data set: four noisy balls, the last two with a second label."""
    root = tmp_path / "Dataset003_Liver"
    for name in ("imagesTr", "labelsTr"):
        (root / name).mkdir(parents=True)
    content = {"channel_names": {"0": "CT"}, "labels": LABELS, "file_ending": ".nii.gz"}
    (root / "dataset.json").write_text(json.dumps(content))
    for n in range(1, 5):
        volume, mask = noisy_ball(n)
        labels = mask.astype(np.uint8)
        if n > 2:
            labels[8:13, 16:24, 18:26] = 2
        write_image(root / "imagesTr" / f"liver_{n:03d}_0000.nii.gz", volume)
        write_image(root / "labelsTr" / f"liver_{n:03d}.nii.gz", labels)
    return root


@pytest.fixture
def small(tmp_path: Path) -> str:
    """A small network in a file, to start from."""
    path = tmp_path / "small.safetensors"
    network = BuiltinNetwork(**SMALL)
    write_weights(network.state_dict(), network.config, path)
    return str(path)


def tiny(start_from: str) -> dict:
    """Settings that make a run a matter of a second."""
    return {
        "steps": 2,
        "batch": 2,
        "log_every": 1,
        "precision": "32-true",
        "sources": {},
        "start_from": start_from,
    }


def test_an_nnunet_folder_is_read(folder):
    cases = read_nnunet(folder)
    assert [case.id for case in cases] == ["liver_001", "liver_002", "liver_003", "liver_004"]
    assert cases[0].names == {1: "liver", 2: "tumour"}
    content = cases[2].load()
    assert content.volume.shape == content.labels.shape == (21, 40, 44)
    assert set(np.unique(content.labels)) == {0, 1, 2}


def test_regions_and_the_first_version_of_the_format_have_names(folder):
    path = folder / "dataset.json"
    path.write_text(json.dumps({"labels": {"background": 0, "whole": [1, 2], "core": 2}}))
    assert read_nnunet(folder)[0].names == {1: "whole", 2: "core"}
    path.write_text(json.dumps({"labels": {"0": "background", "1": "liver"}}))
    assert read_nnunet(folder)[0].names == {1: "liver"}
    path.write_text(path.read_text(), encoding="utf-8-sig")  # with a byte order mark
    assert read_nnunet(folder)[0].names == {1: "liver"}


@pytest.mark.parametrize(
    ("breakage", "message"),
    [
        (lambda root: (root / "dataset.json").unlink(), r"cannot be read \(No such file"),
        (lambda root: (root / "dataset.json").write_text('{"labels": 3}'), "is no nnU-Net"),
        (lambda root: (root / "dataset.json").write_text("[" * 100_000), "is no nnU-Net"),
        (lambda root: (root / "dataset.json").write_text('{"labels": {"x": 1e400}}'), "is no nnU"),
        (lambda root: (root / "imagesTr" / "liver_002_0000.nii.gz").unlink(), "no image"),
        (lambda root: [p.unlink() for p in (root / "labelsTr").iterdir()], "has no labels"),
    ],
)
def test_a_broken_folder_is_refused(folder, breakage, message):
    breakage(folder)
    with pytest.raises(InputError, match=message):
        read_dataset(DatasetConfig(str(folder)))


def test_labels_that_are_not_there_are_named(folder):
    with pytest.raises(InputError, match=r"no label spleen; it has: liver, tumour"):
        read_dataset(DatasetConfig(str(folder), labels=("spleen",)))
    with pytest.raises(InputError, match="There is no data set"):
        read_dataset(DatasetConfig(str(folder / "nothing")))


def test_a_region_is_learnt_and_measured_as_one_object(folder):
    labels = {"background": 0, "whole": [1, 2], "core": [2], "ball": 1}
    (folder / "dataset.json").write_text(json.dumps({"labels": labels}))
    whole = read_dataset(DatasetConfig(str(folder), labels=("whole",)))
    case = whole.cases[2]
    values = case.load().labels
    found = labelled_case(case, whole)
    assert found.targets == [1]
    assert np.array_equal(found.labels == 1, values > 0)
    (measured,) = held_out_cases([replace(whole, cases=[case, case])], 0.5)
    assert measured.names == {1: "whole"}
    assert np.array_equal(measured.load_labels(), values > 0)
    core = read_dataset(DatasetConfig(str(folder), labels=("core", "ball")))
    assert labelled_case(case, core).targets == [1, 2]
    with pytest.raises(InputError, match=r"whole and core .* overlap: list it twice"):
        read_dataset(DatasetConfig(str(folder), labels=("whole", "core")))


def test_labels_are_known_by_name_whatever_their_number_is_in_a_case(folder, tmp_path):
    cases = [
        {
            "id": str(n),
            "image": f"{folder.name}/imagesTr/liver_00{n}_0000.nii.gz",
            "label": f"{folder.name}/labelsTr/liver_00{n}.nii.gz",
            "labels": [{"value": 1, "name": names[0]}, {"value": 2, "name": names[1]}],
        }
        for n, names in ((3, ("liver", "tumour")), (4, ("tumour", "liver")))
    ]
    (tmp_path / "manifest.json").write_text(json.dumps({"cases": cases}))
    tumour = read_dataset(DatasetConfig(str(tmp_path / "manifest.json"), labels=("tumour",)))
    assert [labelled_case(case, tumour).targets for case in tumour.cases] == [[2], [1]]
    held_out = held_out_cases([tumour], 0.5)
    assert [case.names for case in held_out] == [{1: "tumour"}]


def test_held_out_cases_are_never_trained_on(folder):
    dataset = read_dataset(DatasetConfig(str(folder)))
    kept, out = split(dataset, 0.25)
    assert len(kept.cases) == 3 and len(out.cases) == 1
    assert {c.id for c in kept.cases}.isdisjoint(c.id for c in out.cases)
    assert split(dataset, 0.0)[1].cases == []
    assert len(split(dataset, 0.99)[0].cases) == 1


def test_held_out_cases_of_several_data_sets_are_told_apart(folder):
    """Each with the labels of its data set, and read when they are needed."""
    whole, tumour = (read_dataset(DatasetConfig(str(folder), labels=n)) for n in ((), ("tumour",)))
    (case,) = held_out_cases([tumour], 0.25)
    assert case.id == "liver_003"  # as it is where there is one data set
    first, second = held_out_cases([whole, tumour], 0.25)
    assert (first.id, second.id) == ("1: liver_003", "2: liver_003")
    assert first.content is None and second.content is None
    assert set(np.unique(first.load_labels())) == {0, 1, 2}
    assert set(np.unique(second.load().labels)) == set(np.unique(second.load_labels())) == {0, 2}


def test_the_first_cases_that_have_what_is_learnt_are_measured(folder):
    """A rare structure is not in all of those that are held out."""
    tumour = read_dataset(DatasetConfig(str(folder), labels=("tumour",)))
    out = [case.id for case in split(tumour, 0.5)[1].cases]
    assert out == ["liver_002", "liver_004"]  # the last two of the four have it
    assert [case.id for case in held_out_cases([tumour], 0.5, 1)] == ["liver_004"]


def test_where_no_held_out_case_has_what_is_learnt_that_is_said(folder, small, tmp_path, capsys):
    config = tmp_path / "run.yaml"
    own = [{"path": str(folder), "labels": ["tumour"]}]
    settings = {"name": "x", "output": str(tmp_path / "run"), "datasets": own}
    config.write_text(yaml.safe_dump(settings | tiny(small) | {"select": {"steps": 1}}))
    (out,) = split(read_dataset(DatasetConfig(str(folder))), 0.2)[1].cases
    write_image(out.label, np.zeros_like(out.load_labels()))
    outcome = run_command(capsys, "finetune", config)
    assert_refused(outcome, "none of the cases that are held out has a structure to select by")
    config.write_text(yaml.safe_dump(settings | tiny(small)))
    outcome = run_command(capsys, "finetune", config)
    assert outcome.code == 0, outcome.err
    said = "None of the held-out cases has a structure that was learnt, so nothing was measured."
    assert said in outcome.out and said in (tmp_path / "run" / "x.md").read_text()


def test_what_marks_slices_without_labels_is_no_structure_to_measure(folder):
    named = {**LABELS, "ignore": 2}
    del named["tumour"]
    (folder / "dataset.json").write_text(json.dumps({"labels": named}))
    dataset = read_dataset(DatasetConfig(str(folder), unlabelled=2))
    for case in held_out_cases([dataset], 0.5):
        assert set(np.unique(case.load_labels())) == {0, 1}


def test_a_shelf_holds_few_volumes_but_shows_all(folder):
    dataset = read_dataset(DatasetConfig(str(folder), labels=("liver",)))
    rng = np.random.default_rng(0)
    shelf = Shelf(dataset, 1, rng)
    seen = set()
    for _ in range(400):
        volume = shelf.volume(rng)
        assert volume.targets == [1]
        seen.add(float(volume.image.astype(np.float64).sum()))
    assert len(shelf._volumes) == 1
    assert len(seen) == 4
    with pytest.raises(InputError, match="large enough"):
        Shelf(Dataset("none", 1.0, dataset.cases, ("none",)), 2, rng)


def test_images_that_cannot_be_learnt_from_are_named(folder):
    volume = np.full(noisy_ball(2)[0].shape, 7.0, np.float32)
    write_image(folder / "imagesTr" / "liver_002_0000.nii.gz", volume)
    with pytest.raises(InputError, match="Case liver_002: all voxels of the image are alike"):
        Shelf(read_dataset(DatasetConfig(str(folder))), 24, np.random.default_rng(0))
    volume[0, 0] = np.nan
    with pytest.raises(InputError, match=r"Case liver_002: .* no finite numbers"):
        scaled(volume, "liver_002")


def test_a_source_that_gives_nothing_is_named(folder, small, monkeypatch):
    """In place of an endless search."""
    config = TrainConfig("x", sources={}, datasets=[DatasetConfig(str(folder))])
    monkeypatch.setattr(mixture, "cut", lambda *given: None)
    ours = Mixture(config, seed=1)
    with pytest.raises(InputError, match=r"No structure of Dataset003_Liver could be cut"):
        ours.draw()


def test_sources_are_mixed_by_weight(folder):
    described = [DatasetConfig(str(folder), 3.0), DatasetConfig(str(folder), 1.0, ("tumour",))]
    config = TrainConfig("unused", sources={}, datasets=described)
    mixture = Mixture(config, seed=1)
    assert mixture.shares.tolist() == [0.75, 0.25]
    assert mixture.draw().mask[1].any()
    with pytest.raises(InputError, match="no share"):
        Mixture(TrainConfig("unused", sources={}), seed=1)


def test_the_guide_leads_from_a_folder_to_a_model(folder, small, tmp_path, monkeypatch, capsys):
    """Runs what the guide says, with fewer steps and a smaller network."""
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```bash\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    assert len(blocks) == 5
    install, config, *commands = (re.sub(r"(?m)^   ", "", block).strip() for block in blocks)
    assert install == 'pip install ".[evaluate,train]"'
    first, *body, last = config.splitlines()
    assert (first, last) == ("cat > liver.yaml <<END", "END")
    settings = yaml.safe_load("\n".join(body)) | tiny(small)
    Path("liver.yaml").write_text(yaml.safe_dump(settings))

    outputs = []
    for line in commands:
        program, *words = shlex.split(line)
        assert program == "slidesam"
        outcome = run_command(capsys, *words)
        assert outcome.code == 0, outcome.err
        outputs.append(outcome.out)
    assert re.search(r"mean Dice 0\.\d+ before, 0\.\d+ now", outputs[0])
    assert "SHA-256" in outputs[1]
    assert Path("try.seg.nrrd").is_file()

    model = load_model("liver-run/my-liver-model.safetensors")
    assert (model.traits.name, model.traits.licence) == ("My liver model", "CC BY 4.0")
    card = Path("liver-run/my-liver-model.md").read_text()
    for words in ("# My liver model", "| Dataset003_Liver | 1 | 3 | 1 | liver |", "| after | 0."):
        assert words in card


def test_it_says_which_cases_teach_and_which_are_held_out(folder, small, tmp_path, capsys):
    """At the start, and the held-out ones in the card; images without a label are no cases."""
    image = folder / "imagesTr" / "liver_001_0000.nii.gz"
    shutil.copy(image, folder / "imagesTr" / "liver_999_0000.nii.gz")
    shutil.copy(image, folder / "imagesTr" / "._liver_001_0000.nii.gz")
    config = tmp_path / "run.yaml"
    settings = {"name": "x", "output": str(tmp_path / "run"), "datasets": [{"path": str(folder)}]}
    config.write_text(yaml.safe_dump(settings | tiny(small)))
    outcome = run_command(capsys, "finetune", config)
    assert outcome.code == 0, outcome.err
    (out,) = [c.id for c in split(read_dataset(DatasetConfig(str(folder))), 0.2)[1].cases]
    assert (
        f"Dataset003_Liver: 3 cases to train on, 1 held out ({out}), 1 image left out that has no "
        "label (liver_999).\n"
    ) in outcome.out
    assert f"Held out of Dataset003_Liver: {out}." in (tmp_path / "run" / "x.md").read_text()


def test_training_the_decoder_leaves_the_rest_alone(folder, small, tmp_path, capsys):
    config = tmp_path / "run.yaml"
    settings = {"name": "x", "output": str(tmp_path / "run"), "datasets": [{"path": str(folder)}]}
    settings |= tiny(small) | {"trainable": "decoder", "held_out": 0}
    config.write_text(yaml.safe_dump(settings))
    outcome = run_command(capsys, "finetune", config)
    assert outcome.code == 0, outcome.err
    before = read_network(Path(small)).state_dict()
    after = read_network(tmp_path / "run" / "x.safetensors").state_dict()
    moved = {key for key in before if not before[key].equal(after[key])}
    assert moved
    assert all(key.startswith(DECODER) for key in moved)
    assert "nothing was measured" in (tmp_path / "run" / "x.md").read_text()


def test_fine_tuning_in_pieces_writes_the_model_at_its_end(folder, small, tmp_path, capsys):
    config = tmp_path / "run.yaml"
    settings = {"name": "x", "output": str(tmp_path / "run"), "datasets": [{"path": str(folder)}]}
    config.write_text(yaml.safe_dump(settings | tiny(small) | {"held_out": 0, "steps": 2}))
    piece = run_command(capsys, "finetune", config, "--stop-after", "1e-6")
    assert piece.code == 0 and "Stopped at step 1" in piece.out and "--resume" in piece.out
    assert not (tmp_path / "run" / "x.safetensors").exists()
    rest = run_command(capsys, "finetune", config, "--resume")
    assert rest.code == 0 and "The model is" in rest.out
    assert (tmp_path / "run" / "x.safetensors").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": None}, "`name`"),
        ({"datasets": []}, "`datasets`"),
        ({"datasets": [{"folder": "x"}]}, "unknown settings: folder"),
        ({"datasets": ["x"]}, "datasets must be a list"),
        ({"datasets": [{"path": "x", "weight": -1}]}, "must not be negative"),
        ({"trainable": "tail"}, "trainable must be one of all, decoder"),
        ({"held_out": 1}, "held_out"),
        ({"sources": {"dreams": 1}}, "sources has dreams"),
        ({"start_from": "none.safetensors"}, "is not there: give a name of 'slidesam models list'"),
        ({"steps": "many"}, "steps must be a whole number from 1 on, not 'many'"),
    ],
)
def test_bad_settings_are_refused_and_nothing_is_written(folder, tmp_path, capsys, change, message):
    config = tmp_path / "run.yaml"
    settings = {"name": "x", "output": str(tmp_path / "run"), "datasets": [{"path": str(folder)}]}
    config.write_text(yaml.safe_dump(settings | change))
    assert_refused(run_command(capsys, "finetune", config), message)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("command", "name"),
    [("finetune", "x"), *product(("train", "finetune"), ("weights", "best", "candidate"))],
)
def test_a_run_does_not_replace_what_it_starts_from(folder, small, tmp_path, capsys, command, name):
    config, output = tmp_path / "run.yaml", tmp_path / "run"
    output.mkdir()
    start = Path(small).rename(output / f"{name}.safetensors")
    before = start.read_bytes()
    settings = tiny(str(start)) | {"output": str(output), "datasets": [{"path": str(folder)}]}
    if command == "finetune":
        settings["name"] = "x"
    config.write_text(yaml.safe_dump(settings))
    outcome = run_command(capsys, command, config)
    assert start.read_bytes() == before
    assert_refused(outcome, "would overwrite", "another output folder")
    assert list(output.iterdir()) == [start]


@pytest.mark.parametrize("name", ["Weights", "best", "candidate!"])
def test_a_model_is_not_named_like_a_file_of_the_run(folder, small, tmp_path, capsys, name):
    """Its file would take the place of the run's newest or best weights, or be deleted as one."""
    config, output = tmp_path / "run.yaml", tmp_path / "run"
    settings = tiny(small) | {"output": str(output), "datasets": [{"path": str(folder)}]}
    config.write_text(yaml.safe_dump(settings | {"name": name}))
    outcome = run_command(capsys, "finetune", config)
    assert_refused(outcome, "The run itself writes", "give the model another name")
    assert not output.exists()


def test_defaults_can_be_set(folder, small, tmp_path):
    config = tmp_path / "run.yaml"
    settings = {"name": "My Model, v2", "output": "run", "datasets": [{"path": str(folder)}]}
    config.write_text(yaml.safe_dump(settings | {"start_from": small, "steps": 7}))
    read = read_finetune_config(config)
    assert (read.train.steps, read.train.learning_rate, read.licence) == (7, 2e-4, "not stated")
    assert read.weights_path.name == "my-model-v2.safetensors"
    assert slug("???") == "model"
    config.write_text(yaml.safe_dump(settings | {"start_from": None, "licence": None}))
    read = read_finetune_config(config)  # names without values say nothing
    assert (read.train.start_from, read.licence) == (str(CATALOGUE["builtin"].path), "not stated")
