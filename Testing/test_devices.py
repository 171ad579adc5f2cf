"""Which device and which precision are taken."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from SlideSAMLib.compute import devices
from SlideSAMLib.errors import InputError
from SlideSAMLib.sam.model import load_sam


def test_devices_that_are_not_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert devices.choose_device("auto") == devices.choose_device("cpu") == torch.device("cpu")
    for name, words in [
        ("cuda", "no usable CUDA GPU"),
        ("cuda:1", "no usable CUDA GPU"),
        ("mps", "no Apple GPU"),
        ("gpu", "is unknown"),
        ("cuda:x", "is unknown"),
        ("", "is unknown"),
    ]:
        with pytest.raises(InputError, match=words):
            devices.choose_device(name)


@pytest.fixture
def gpus(monkeypatch) -> Callable[..., None]:
    """Two GPUs of a name and capability, and a PyTorch that was built for some."""

    def there(name="a card", capability=(9, 0), built=("sm_75", "sm_80", "sm_90"), current=0):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: current)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
        monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: list(built))

    return there


def test_devices_that_are_there(monkeypatch, gpus):
    gpus()
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert devices.choose_device("auto") == torch.device("cuda", 0)
    assert devices.choose_device("cuda:1") == torch.device("cuda", 1)
    assert devices.choose_device("mps") == torch.device("mps")
    with pytest.raises(InputError, match="use 0 to 1"):
        devices.choose_device("cuda:2")


@pytest.mark.parametrize("name", ["auto", "cuda"])
def test_a_gpu_has_its_number(gpus, name):
    """The current GPU is another one in another thread, or once a script has gone on."""
    gpus(current=1)
    model_device = devices.choose_device(name)
    gpus(current=0)
    assert model_device == torch.device("cuda", 1)


@pytest.mark.parametrize("name", ["auto", "cuda", "cuda:1"])
def test_the_free_memory_of_a_gpu_that_was_chosen(monkeypatch, gpus, name):
    """PyTorch before 2.5 asks for the number of a GPU there."""

    def mem_get_info(device):
        if device.index is None:
            raise ValueError(f"Expected a torch.device with a specified index, but got:{device}")
        return 5, 9

    gpus()
    monkeypatch.setattr(torch.cuda, "mem_get_info", mem_get_info)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 3)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 2)
    assert devices.free_memory(devices.choose_device(name)) == 6


def test_an_old_card_beside_a_usable_one(monkeypatch, gpus):
    """CUDA counts the cards by their slots, or another is in the way."""
    gpus(built=["sm_75", "sm_80"])
    found = {0: (3, 5), 1: (8, 6)}
    ask = "get_device_capability"
    monkeypatch.setattr(torch.cuda, ask, lambda device: found[torch.device(device).index or 0])
    assert devices.choose_device("auto") == torch.device("cuda", 1)


@pytest.mark.parametrize(
    ("capability", "built", "wanted"),
    [
        ((8, 6), ["sm_75", "sm_80", "sm_90"], None),  # kernels of 8.0 run on 8.6
        ((7, 0), ["sm_75", "sm_80", "sm_90"], "an older"),
        ((6, 1), ["sm_75", "sm_80", "compute_90"], "an older"),
        ((10, 0), ["sm_90", "sm_120"], "another"),  # built for a few cards only
        ((12, 0), ["sm_80", "sm_90a"], "a newer"),
        ((12, 0), ["sm_80", "compute_90"], None),  # compiled on the way
        ((11, 0), ["gfx90a", "gfx1100"], None),  # AMD's own names
        ((9, 0), [], None),
    ],
)
def test_gpus_that_pytorch_was_not_built_for(gpus, capability, built, wanted):
    """A card may be older than all that are known, or newer."""
    gpus("some card", capability, built)
    assert devices.choose_device("auto") == torch.device("cpu" if wanted else "cuda:0")
    if wanted is None:
        assert devices.choose_device("cuda:1") == torch.device("cuda", 1)
    else:
        words = f"other GPUs than the some card: install {wanted} PyTorch that knows it"
        with pytest.raises(InputError, match=words):
            devices.choose_device("cuda")


@pytest.mark.parametrize("capability", [(7, 5), (8, 0), (9, 0)])
def test_precision_of_gpus(gpus, capability):
    gpus("an NVIDIA card", capability)
    chosen = devices.choose_precision("auto", torch.device("cuda"))
    assert chosen == (torch.bfloat16 if capability[0] >= 8 else torch.float16)


@pytest.mark.parametrize(
    ("name", "usable"),
    [
        ("NVIDIA GeForce GTX 1660 Ti", False),
        ("NVIDIA GeForce GTX 1650", False),
        ("Quadro T1000", False),  # laptops and small workstations have the same chips
        ("NVIDIA T1000 8GB", False),
        ("NVIDIA T600 Laptop GPU", False),
        ("Quadro T2000 with Max-Q Design", False),
        ("NVIDIA GeForce MX450", False),
        ("Tesla T4", True),
        ("NVIDIA GeForce RTX 2060", True),
        ("Quadro RTX 4000", True),
    ],
)
def test_cards_without_usable_half_precision(gpus, name, usable):
    gpus(name, (7, 5))
    half = torch.float16 if usable else torch.float32
    assert devices.choose_precision("auto", torch.device("cuda")) == half
    assert devices.choose_precision("float16", torch.device("cuda")) == torch.float16


@pytest.mark.parametrize(
    ("amx", "avx512", "expected"),
    [(True, False, torch.bfloat16), (False, True, torch.bfloat16), (False, False, torch.float32)],
)
def test_precision_of_cpus(monkeypatch, amx, avx512, expected):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512, raising=False)
    assert devices.choose_precision("auto", torch.device("cpu")) == expected
    assert devices.choose_precision("auto", torch.device("mps")) == torch.float32
    assert devices.choose_precision("float16", torch.device("cpu")) == torch.float16


def test_unknown_precision():
    with pytest.raises(InputError, match="precision 'half' is unknown"):
        devices.choose_precision("half", torch.device("cpu"))


@pytest.fixture
def apple(monkeypatch) -> Callable[[bool], None]:
    """An Apple GPU, with a PyTorch that resizes with antialiasing there or does not."""

    def there(resizes: bool) -> None:
        def interpolate(*_, **__):
            if not resizes:
                raise NotImplementedError(
                    "The operator 'aten::_upsample_bilinear2d_aa.out' is not currently implemented "
                    "for the MPS device."
                )

        zeros = torch.zeros
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
        monkeypatch.setattr(torch, "zeros", lambda *shape, **_: zeros(*shape))
        monkeypatch.setattr(torch.nn.functional, "interpolate", interpolate)

    return there


def test_apple_gpus_without_what_sam_needs_are_refused_before_anything_is_read(apple, tmp_path):
    apple(resizes=False)
    for device, loaded in (("mps", False), ("cpu", True)):
        # On another device the file is looked for.
        with pytest.raises(InputError) as told:
            load_sam(tmp_path / "none.pth", device)
        assert ("none.pth" in str(told.value)) == loaded
        assert ("newer PyTorch" in str(told.value)) != loaded
    apple(resizes=True)
    with pytest.raises(InputError, match=r"none\.pth"):
        load_sam(tmp_path / "none.pth", "mps")
