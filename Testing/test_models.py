"""Named models: catalogue, installing, verifying, removing, loading by name or file."""

import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from SlideSAMLib import catalogue, models
from SlideSAMLib.errors import InputError, ModelError
from SlideSAMLib.files import downloads
from Testing.reference import named_weights, tensor_shapes

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A models folder of its own for every test."""
    path = tmp_path / "models"
    monkeypatch.setenv("SLIDESAM_MODELS", str(path))
    return path


@pytest.fixture
def entry(monkeypatch):
    """The catalogue's 'sam-vit-b', with the hash of another file."""
    info = replace(models.model_info("sam-vit-b"), sha256="0" * 64)
    monkeypatch.setitem(catalogue.CATALOGUE, info.name, info)
    return info


def _mini_pth(path: Path) -> Path:
    torch.save(named_weights(tensor_shapes("mini")), path)
    return path


# Catalogue


def test_catalogue():
    infos = {info.name: info for info in models.list_models()}
    assert next(iter(infos)) == "builtin"
    assert {"slidesam-b", "slidesam-h", "sam-vit-b", "sam-vit-l", "sam-vit-h"} < set(infos)
    assert infos["medsam-vit-b"].kind == "medsam"
    for info in infos.values():
        assert info.title and info.licence and info.page.startswith("https://")
        assert (info.source == "download") == (info.url is not None)
        if info.url is not None:
            assert info.url.startswith("https://") and info.url.endswith(info.file)
            assert len(info.sha256) == 64 and info.size > 0
    assert "choose the file" in infos["slidesam-b"].title


def test_importing_needs_no_torch():
    code = "import sys, SlideSAMLib.models; print('torch' in sys.modules, 'numpy' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.split()[0] == "False", done.stderr


def test_models_folder(monkeypatch, tmp_path):
    assert models.models_folder() == tmp_path / "models"
    monkeypatch.delenv("SLIDESAM_MODELS")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert models.models_folder() == tmp_path / "cache" / "slidesam"
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    assert models.models_folder() == tmp_path / "local" / "slidesam"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert models.models_folder().parts[-3:] == ("Library", "Caches", "slidesam")


# Installing, verifying, removing


def test_install_verify_remove(tmp_path, folder):
    source = _mini_pth(tmp_path / "downloaded.pth")
    path = models.install("slidesam-b", source)
    assert path == folder / "slidesam_b.pth" and path.read_bytes() == source.read_bytes()
    found = models.verify("slidesam-b")
    assert found.matches is True and found.sha256 == found.expected
    assert found.description.startswith("Slide-SAM ViT of 4 blocks")
    assert models.verify(source).matches is None
    size = path.stat().st_size
    assert models.remove("slidesam-b") == size
    assert not path.exists() and json.loads((folder / "hashes.json").read_text()) == {}
    with pytest.raises(InputError, match="nothing to remove"):
        models.remove("slidesam-b")


def test_an_install_that_fails_leaves_nothing(tmp_path, folder, monkeypatch):
    def full(source, target):
        Path(target).write_bytes(b"a part of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(models.shutil, "copyfile", full)
    with pytest.raises(InputError, match="cannot be written: No space left"):
        models.install("slidesam-b", _mini_pth(tmp_path / "downloaded.pth"))
    assert list(folder.iterdir()) == []


def test_install_refuses_what_does_not_fit(tmp_path, folder):
    text = tmp_path / "text.pth"
    text.write_text("no model at all, only text")
    with pytest.raises(ModelError, match="not a model file"):
        models.install("slidesam-b", text)
    with pytest.raises(ModelError, match="not the published file"):
        models.install("sam-vit-b", _mini_pth(tmp_path / "mini.pth"))
    with pytest.raises(InputError, match="no file named"):
        models.install("slidesam-b", tmp_path / "absent.pth")
    with pytest.raises(InputError, match="comes with SlideSAM"):
        models.install("builtin", text)
    assert not folder.exists()


def test_verify_notices_a_changed_file(tmp_path):
    path = models.install("slidesam-b", _mini_pth(tmp_path / "mini.pth"))
    weights = named_weights(tensor_shapes("mini"))
    weights["mask_decoder.iou_token.weight"] += 1
    torch.save(weights, path)
    assert models.verify("slidesam-b").matches is False


def test_remove_takes_the_partial_file(entry, folder):
    folder.mkdir()
    downloads.partial_path(entry.path).write_bytes(b"x" * 1000)
    assert models.remove(entry.name) == 1000
    assert list(folder.glob("*.part")) == []


def test_builtin_and_unknown_are_not_removed():
    with pytest.raises(InputError, match="cannot be removed"):
        models.remove("builtin")
    with pytest.raises(InputError, match="known are builtin"):
        models.remove("nothing")


# Loading


def test_load_a_file(tmp_path):
    model = models.load_model(_mini_pth(tmp_path / "mini.pth"), "cpu", "float32")
    assert (model.traits.name, model.traits.input_size) == ("mini.pth", 128)


def test_load_by_name_records_and_checks_the_hash(tmp_path, folder, monkeypatch):
    folder.mkdir()
    path = _mini_pth(folder / "medsam_vit_b.pth")
    model = models.load_model("medsam-vit-b", "cpu", "float32")
    assert (model.traits.name, model.traits.licence) == ("medsam-vit-b", "Apache-2.0")
    assert model.traits.prompts == {"box"} and model.traits.candidates == 1
    actual = hashlib.sha256(path.read_bytes()).hexdigest()
    assert catalogue.recorded_hash(models.model_info("medsam-vit-b")) == actual

    def never(*args):
        raise AssertionError("an unchanged file is not hashed again")

    with monkeypatch.context() as patch:
        patch.setattr(catalogue, "file_sha256", never)
        models.load_model("medsam-vit-b", "cpu", "float32")
    torch.save({"module." + n: t for n, t in named_weights(tensor_shapes("mini")).items()}, path)
    with pytest.raises(ModelError, match="not the one recorded on its first use"):
        models.load_model("medsam-vit-b", "cpu", "float32")


def test_a_published_hash_is_checked_on_load(entry, folder):
    folder.mkdir()
    _mini_pth(entry.path)
    with pytest.raises(ModelError, match="not the one published"):
        models.load_model(entry.name)


def test_an_unwritable_record_costs_only_time(folder, monkeypatch):
    folder.mkdir()
    _mini_pth(folder / "slidesam_b.pth")
    (folder / "hashes.json").mkdir()
    assert models.load_model("slidesam-b", "cpu").traits.name == "slidesam-b"
    assert not list(folder.glob(".*part"))


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("no-such-model", InputError, "known models are builtin"),
        ("absent/file.pth", InputError, "no model and no file"),
        ("sam-vit-b", ModelError, "slidesam models download sam-vit-b"),
        ("sam-vit-b", ModelError, "download it in the SlideSAM module of Slicer, or"),
        ("slidesam-h", ModelError, "get its file from https://github.com/Curli-quan/Slide-SAM"),
        ("slidesam-h", ModelError, "in Slicer by Choose file in the SlideSAM module"),
        ("slidesam-h", ModelError, "slidesam models download slidesam-h --from FILE"),
    ],
)
def test_models_that_are_not_there(name, error, words):
    with pytest.raises(error, match=words) as raised:
        models.load_model(name)
    assert str(raised.value).endswith(".") and "\n" not in str(raised.value)


def test_a_folder_is_no_model(tmp_path):
    with pytest.raises(InputError, match="is a folder"):
        models.load_model(tmp_path)


def test_a_device_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="no usable CUDA GPU"):
        models.load_model(_mini_pth(tmp_path / "mini.pth"), device="cuda")


def test_a_registered_model(monkeypatch):
    monkeypatch.setattr(models, "_LOADERS", {})
    models.register_model("mine", lambda device, precision: (device, precision))
    assert models.load_model("mine", "cpu", "float32") == ("cpu", "float32")


def test_builtin_tensors_go_to_the_builtin_loader(tmp_path, monkeypatch):
    """A file with the built-in model's tensors is loaded as such, under any name."""
    asked = []
    fake = type(sys)("SlideSAMLib.builtin.model")
    fake.load_builtin = lambda *arguments: asked.append(arguments) or "the model"
    monkeypatch.setitem(sys.modules, "SlideSAMLib.builtin.model", fake)
    path = tmp_path / "own.safetensors"
    save_file({"x": torch.zeros(2)}, path, metadata={"format": "slidesam-builtin"})
    assert models.load_model(path, "cpu", "float32") == "the model"
    assert asked == [(path, "cpu", "float32")]
    with pytest.raises(ModelError, match="of version None"):  # no network is in it
        models.verify(path)


def test_without_torch(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ModelError, match="PyTorch is not installed"):
        models.load_model(tmp_path / "any.pth")
