"""Fine-tuning the three-slice SAM networks: windows, losses, LoRA, adapter files, the command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

pytest.importorskip("lightning_fabric", reason="training needs the extra 'train'")
pytest.importorskip("peft", reason="LoRA needs the extra 'train'")

from SlideSAMLib import SlicePrompt, load_model, segment
from SlideSAMLib.errors import InputError, ModelError
from SlideSAMLib.files.safetensors_files import read_safetensors
from SlideSAMLib.models import verify
from SlideSAMLib.sam.checkpoints import load_checkpoint
from SlideSAMLib.sam.network import build_network
from SlideSAMLib.training import sam_task
from SlideSAMLib.training.config import TrainConfig
from SlideSAMLib.training.finetune import read_finetune_config
from SlideSAMLib.training.generators import StateMismatch
from SlideSAMLib.training.loop import Training, learnt
from SlideSAMLib.training.sam_losses import candidate_loss, sam_figures, sam_loss
from SlideSAMLib.training.sam_task import SamTask, plain_name
from SlideSAMLib.training.sam_windows import Frame, Windows
from Testing.cli_tools import noisy_ball, run_command, write_image
from Testing.reference import MINI, named_weights, tensor_shapes
from Testing.training_data import blocks, samples_of

FRAME = Frame(size=128, raster=32, resize="antialias", scaling="sam")


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """A small network with the names of the published one."""
    path = tmp_path_factory.mktemp("base") / "mini.pth"
    torch.save(named_weights(tensor_shapes("mini")), path)
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """An nnU-Net data set of three noisy balls."""
    root = tmp_path_factory.mktemp("data") / "Dataset001_Balls"
    for name in ("imagesTr", "labelsTr"):
        (root / name).mkdir(parents=True)
    content = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "ball": 1}}
    (root / "dataset.json").write_text(json.dumps(content | {"file_ending": ".nii.gz"}))
    for n in range(1, 4):
        volume, mask = noisy_ball(n)
        write_image(root / "imagesTr" / f"ball_{n}_0000.nii.gz", volume)
        write_image(root / "labelsTr" / f"ball_{n}.nii.gz", mask.astype(np.uint8))
    return root


def settings(output: Path, base: Path, data: Path, **others) -> dict:
    return {
        "name": "My balls",
        "licence": "CC0-1.0",
        "output": str(output),
        "start_from": str(base),
        "datasets": [{"path": str(data)}],
        "steps": 2,
        "batch": 2,
        "accumulate": 2,
        "warm_up": 1,
        "log_every": 1,
        "precision": "32-true",
        **others,
    }


def write(path: Path, values: dict) -> Path:
    path.write_text(yaml.safe_dump(values))
    return path


def config(tmp_path: Path, base: Path, data: Path, **others) -> TrainConfig:
    tmp_path.mkdir(exist_ok=True)
    return read_finetune_config(
        write(tmp_path / "run.yaml", settings(tmp_path / "run", base, data, **others))
    ).train


# Windows


def answer(target: torch.Tensor, scale: float) -> torch.Tensor:
    return (scale * (2 * target - 1))[:, None].repeat(1, 4, 1, 1, 1)


@pytest.fixture
def target() -> torch.Tensor:
    target = torch.zeros(2, 3, 32, 32)
    target[:, :2, 8:20, 10:24] = 1
    return target


def test_better_answers_cost_less(target):
    labelled, sure = torch.ones(2, 3), torch.ones(2, 4)
    right, vague, wrong = (
        float(sam_loss(answer(target, s), sure, target, labelled)) for s in (9, 0.5, -9)
    )
    assert right < 0.1 < vague < wrong
    doubt = float(sam_loss(answer(target, 9), 0 * sure, target, labelled))
    assert doubt == pytest.approx(right + 1, abs=0.01)  # the IoU is 1, predicted as 0


def test_only_labelled_slices_and_the_best_candidate_count(target):
    logits = answer(target, 9.0)
    logits[:, :, 0] *= -1  # wrong on a slice that nobody has labelled
    labelled = torch.tensor([[0.0, 1.0, 1.0]] * 2)
    assert float(candidate_loss(logits, target, labelled).max()) < 0.1
    logits[:, 1:3] *= -1  # two of the three candidates are wrong everywhere
    each = candidate_loss(logits, target, labelled)
    assert float(each[:, 1:3].min()) > 1 and float(each[:, 3].max()) < 0.1
    sure = torch.tensor([[1.0, 0.0, 0.0, 1.0]] * 2)
    assert float(sam_loss(logits, sure, target, labelled)) < 0.2
    found = sam_figures(logits, target, labelled)
    assert found["centre"] == found["best_centre"] == pytest.approx(1)
    assert found["outer"] == pytest.approx(1)


# What is trained


@pytest.mark.parametrize("trainable", ["lora", "decoder", "all"])
def test_only_the_chosen_part_learns(tmp_path, base, data, trainable):
    training = Training(config(tmp_path, base, data, trainable=trainable))
    names = {plain_name(name) for name in learnt(training.network.module)}
    lora = {name for name in names if ".lora_" in name}
    encoder = {name for name in names if name.startswith("image_encoder.")}
    assert len(lora) == (2 * MINI.depth if trainable == "lora" else 0)
    assert encoder == lora or trainable == "all"
    before = {n: v.clone() for n, v in training.task.network.state_dict().items()}
    training.run()
    changed = {
        plain_name(name)
        for name, value in training.task.network.state_dict().items()
        if not torch.equal(value, before[name])
    }
    assert changed <= names and len(changed) > 0.8 * len(names)
    assert changed & lora or trainable != "lora"


@pytest.mark.parametrize("trainable", ["lora", "decoder", "all"])
def test_the_default_precision_rounds_no_place(tmp_path, base, data, trainable, monkeypatch):
    """All parts learn in it; the network gets points and boxes as they are."""
    chosen = config(tmp_path, base, data, trainable=trainable, steps=3)
    chosen.precision = TrainConfig.precision
    assert chosen.precision == "bf16-mixed"
    training = Training(chosen)
    before = {n: v.clone() for n, v in learnt(training.network.module).items()}
    training.run()
    after = learnt(training.network.module)
    assert sum(not torch.equal(v, before[n]) for n, v in after.items()) > 0.8 * len(before)

    encoder, seen = training.task.network.network.prompt_encoder, []
    exact = encoder.pe_layer.forward_with_coords

    def looked_at(places, size):
        answer = exact(places, size)
        seen.append((places, answer.clone()))  # SAM adds to it
        return answer

    monkeypatch.setattr(encoder.pe_layer, "forward_with_coords", looked_at)
    samples = samples_of(blocks(), 6)
    training.network(Windows(samples))
    assert seen
    for places, answer in seen:
        assert places.dtype == answer.dtype == torch.float32
        assert torch.equal(answer, exact(places, encoder.input_image_size))
    for box in (s.box for s in samples if s.box is not None):
        assert any(torch.equal(box.reshape(1, 2, 2) + 0.5, places) for places, _ in seen)


def test_it_learns(tmp_path, base, data):
    """The loss of the same windows falls, through the adapters and the decoder."""
    training = Training(config(tmp_path, base, data, trainable="lora", learning_rate=2e-3, batch=4))
    task = training.task
    task.start(0)
    with torch.no_grad():
        samples = task._slides.step()
    targets = torch.stack([s.target for s in samples])
    known = torch.stack([s.labelled for s in samples])
    losses = []
    for _ in range(25):
        training.optimiser.zero_grad()
        loss = sam_loss(*training.network(Windows(samples)), targets, known)
        training.fabric.backward(loss)
        for group in training.optimiser.param_groups:
            group["lr"] = 2e-3
        training.optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]


# Files


def trained_file(tmp_path, base, data, **others) -> Path:
    return Training(config(tmp_path, base, data, **others)).run()


@pytest.mark.parametrize("trainable", ["lora", "decoder", "all"])
def test_the_file_is_the_trained_network(tmp_path, base, data, trainable):
    """Read without PEFT, it gives the same answers as what was trained (in half precision)."""
    training = Training(config(tmp_path, base, data, trainable=trainable, average=0.0, steps=3))
    path = training.run()
    checkpoint = load_checkpoint(path)
    assert checkpoint.tuned and checkpoint.config == MINI
    network = build_network(checkpoint.config)
    network.load_state_dict(checkpoint.tensors)
    samples = samples_of(blocks(), 3)
    trained = training.task.network
    ours = type(trained)(network)
    with torch.no_grad():
        answers = zip(ours(Windows(samples)), trained(Windows(samples)), strict=True)
    for mine, theirs in answers:
        assert float((mine - theirs).abs().max()) < 0.01 * float(theirs.abs().max())
    if trainable == "all":
        assert path.stat().st_size > 0.45 * base.stat().st_size  # half precision
        return
    assert path.stat().st_size < 0.4 * base.stat().st_size  # what was changed, and no more
    tensors, note = read_safetensors(path)
    assert note["adapter_of"] == "mini.pth" and not any("base_layer" in n for n in tensors)


def test_an_adapter_needs_its_base(tmp_path, base, data):
    path = trained_file(tmp_path, base, data, trainable="decoder")
    assert load_model(path, "cpu").traits.candidates == 4  # the base is where it was
    moved = tmp_path / "some" / "where" / path.name
    moved.parent.mkdir(parents=True)
    moved.write_bytes(path.read_bytes())
    with pytest.raises(ModelError, match="changes the model 'mini\\.pth', which"):
        load_model(moved, "cpu")
    (moved.parent / "mini.pth").write_bytes(b"PK\x03\x04 another")
    with pytest.raises(ModelError, match="trained on another file"):
        load_model(moved, "cpu")
    (moved.parent / "mini.pth").write_bytes(base.read_bytes())
    assert load_model(moved, "cpu").traits.candidates == 4


def test_another_file_of_the_base_s_name_may_lie_beside_an_adapter(
    tmp_path, base, data, monkeypatch
):
    """The files of several runs have the same name."""
    monkeypatch.setenv("SLIDESAM_MODELS", str(tmp_path / "models"))
    start = tmp_path / "first" / "best.pth"
    start.parent.mkdir()
    start.write_bytes(base.read_bytes())
    path = trained_file(tmp_path, start, data, trainable="decoder")
    start.parent.rename(tmp_path / "models")
    own = path.rename(path.with_name("best.pth"))
    copy = own.with_name("copy.safetensors")
    copy.write_bytes(own.read_bytes())
    assert load_model(copy, "cpu").traits.candidates == 4
    assert load_model(own, "cpu").traits.candidates == 4
    (tmp_path / "models" / "best.pth").unlink()
    with pytest.raises(ModelError, match="'best\\.pth', which is not here"):
        load_model(own, "cpu")


def test_a_merged_file_stands_alone(tmp_path, base, data, capsys):
    """`slidesam models convert` writes the whole network, which needs neither base nor adapter."""
    run = tmp_path / "run.yaml"
    write(run, settings(tmp_path / "run", base, data, trainable="lora", held_out=0.0))
    assert run_command(capsys, "finetune", run).code == 0
    adapter, merged = tmp_path / "run" / "my-balls.safetensors", tmp_path / "merged.safetensors"
    assert verify(adapter).description.startswith("My balls, made from Slide-SAM")
    done = run_command(capsys, "models", "convert", adapter, merged)
    assert done.code == 0, done.err
    model = load_model(merged, "cpu")
    assert model.traits.name == "My balls" and model.traits.licence == "CC0-1.0"
    assert model.traits.prompts == {"box", "point", "negative", "mask"}
    volume = np.zeros((5, 30, 30), np.int16)
    volume[:, 8:20, 8:20] = 100
    result = segment(volume, [SlicePrompt(2, box=(8, 8, 19, 19))], model=model)
    assert 2 in result.confidence


# The command


def test_the_command_writes_an_adapter_and_its_card(tmp_path, base, data, capsys):
    (tmp_path / "mini.pth").write_bytes(base.read_bytes())
    run = write(
        tmp_path / "run.yaml",
        settings(tmp_path, tmp_path / "mini.pth", data, held_out=0.3, tensorboard=True),
    )
    done = run_command(capsys, "finetune", run)
    assert done.code == 0, done.err
    assert "Held-out cases, one box" in done.out
    card = (tmp_path / "my-balls.md").read_text()
    for text in ("Made from `mini.pth`", "Trained: lora, 2 steps", "| before |", "CC0-1.0"):
        assert text in card
    assert "needs the model `mini.pth`" in card
    header = (tmp_path / "curve.csv").read_text().splitlines()[0]
    assert header == "step,minutes,windows_per_second,data_share,rate,loss,centre,outer,best_centre"
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert list(tmp_path.glob("events.out.tfevents.*"))
    assert load_model(tmp_path / "my-balls.safetensors", "cpu").traits.name == "My balls"


def test_a_run_goes_on_where_it_stopped(tmp_path, base, data):
    """With the same windows: the weights are those of a run that was never interrupted."""
    chosen = {"trainable": "lora", "steps": 6, "batch": 3}
    first = Training(config(tmp_path / "a", base, data, **chosen))
    first._start()
    for _ in range(4):
        first._step()
    first.save()
    second = Training(config(tmp_path / "a", base, data, **chosen))
    assert second.resume() and second.done == 4
    for name, value in learnt(first.network.module).items():
        assert torch.equal(value, learnt(second.network.module)[name]), name
    second.run()
    whole = Training(config(tmp_path / "b", base, data, **chosen))
    whole.run()
    assert second.done == whole.done == 6
    for name, value in learnt(whole.network.module).items():
        assert torch.equal(value, learnt(second.network.module)[name]), name


def test_a_run_goes_on_from_the_file_that_it_started_from_alone(tmp_path, base, data, capsys):
    """Its adapter fits that file; where the file lies does not matter."""
    moved, other = tmp_path / "moved.pth", tmp_path / "other.pth"
    moved.write_bytes(base.read_bytes())
    weights = {name: 1.01 * tensor for name, tensor in torch.load(base).items()}
    torch.save(weights, other)
    Training(config(tmp_path, base, data, steps=1)).run()
    with pytest.raises(InputError, match="began from another model than"):
        Training(config(tmp_path, other, data, steps=2)).resume()
    training = Training(config(tmp_path, moved, data, steps=2))
    assert training.resume()
    training.run()
    assert "other windows" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ({"sources": {"shapes": 0.5}}, "sources is for the built-in model"),
        ({"start_from": "sam-vit-b"}, "slidesam models download sam-vit-b"),
        ({"trainable": "some"}, "all, decoder, lora"),
        ({"lora_rank": 0}, "must be a whole number from 1 on"),
    ],
)
def test_bad_settings_are_named(tmp_path, base, data, others, message, monkeypatch):
    monkeypatch.setenv("SLIDESAM_MODELS", str(tmp_path / "none"))
    with pytest.raises(InputError, match=message):
        config(tmp_path, base, data, **others)


@pytest.mark.parametrize(
    ("name", "value"),
    [("data_processes", 1), ("slab_uses", 2), ("data", "train"), ("network", {"blocks": 3})],
)
def test_what_is_for_the_builtin_model_alone_is_refused(tmp_path, base, data, name, value):
    with pytest.raises(InputError, match=f"{name} is for the built-in network"):
        Training(replace(config(tmp_path, base, data), **{name: value}))


@pytest.mark.parametrize("network", ["", "network.network.", "builtin"])
def test_the_state_of_a_training_is_no_model(tmp_path, data, network):
    """It is called a checkpoint, and its tensors look like those of a network."""
    names = ["stem.weight"] if network == "builtin" else [f"{network}image_encoder.pos_embed"]
    state = {name: torch.zeros(2) for name in names}
    path = tmp_path / "checkpoint.pt"
    torch.save({"network": state, "average": state, "optimiser": {}, "done": 3}, path)
    told = r"state of a training.*weights\.safetensors or best\.safetensors"
    with pytest.raises(ModelError, match=told):
        verify(str(path))
    values = settings(tmp_path / "run", path, data, sources={"shapes": 1})
    with pytest.raises(ModelError, match=told):
        read_finetune_config(write(tmp_path / "run.yaml", values))


def test_the_builtin_model_has_no_lora(tmp_path, data):
    values = settings(tmp_path / "run", Path("builtin"), data, trainable="lora")
    with pytest.raises(InputError, match="no LoRA"):
        Training(read_finetune_config(write(tmp_path / "run.yaml", values)).train)


@pytest.mark.slow
def test_two_processes_share_the_work(tmp_path, base, data):
    """Under torchrun both see windows of their own and end with the same weights."""
    run = write(tmp_path / "run.yaml", settings(tmp_path / "run", base, data, held_out=0.0))
    words = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "29517"]
    done = subprocess.run(
        [sys.executable, *words, "-m", "SlideSAMLib", "finetune", str(run)],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=Path(__file__).parent.parent,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    rows = (tmp_path / "run" / "curve.csv").read_text().splitlines()
    assert len(rows) == 3  # header and two steps, written by one of them
    assert (tmp_path / "run" / "my-balls.safetensors").is_file()


def test_windows_of_an_earlier_version_are_replaced(tmp_path, base, data):
    task = SamTask(config(tmp_path, base, data))
    task.start(0)
    state = task.state()
    task.start(0, state)
    del state["slides"]  # as it was when windows were single ones
    with pytest.raises(StateMismatch, match="an earlier SlideSAM"):
        task.start(0, state)


def test_a_data_set_that_gives_no_window_is_named(tmp_path, base, data, monkeypatch):
    monkeypatch.setattr(sam_task, "cut_slab", lambda *given: None)
    with pytest.raises(InputError, match="No structure of Dataset001_Balls could be cut"):
        SamTask(config(tmp_path, base, data)).start(0)


def test_the_task_needs_data(base):
    with pytest.raises(InputError, match="list at least one"):
        SamTask(TrainConfig(output="x", start_from=str(base)))
