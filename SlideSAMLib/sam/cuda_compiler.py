"""Small CUDA kernels from source, compiled by the NVRTC that comes with PyTorch.

No compiler and no CUDA toolkit has to be installed: NVRTC is a library that PyTorch's packages for
CUDA bring along, and the driver loads what it makes.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor


class Kernel:
    """One compiled kernel of a device; keep it as long as it is used."""

    def __init__(self, driver: ctypes.CDLL, module: ctypes.c_void_p, name: str) -> None:
        self._driver = driver
        self._function = ctypes.c_void_p()
        _check(driver.cuModuleGetFunction(ctypes.byref(self._function), module, name.encode()))

    def __call__(self, blocks: int, threads: int, *arguments: Tensor | int | None) -> None:
        """Start it on the current stream of the tensors' device.

        Tensors are pointers, None is the null pointer; the first argument is a tensor.
        """
        values = [
            ctypes.c_int(argument)
            if isinstance(argument, int)
            else ctypes.c_void_p(0 if argument is None else argument.data_ptr())
            for argument in arguments
        ]
        pointers = (ctypes.c_void_p * len(values))(*(ctypes.addressof(value) for value in values))
        sizes = (blocks, 1, 1, threads, 1, 1, 0)
        with torch.cuda.device_of(arguments[0]):  # which need not be the current device
            stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
            _check(self._driver.cuLaunchKernel(self._function, *sizes, stream, pointers, None))


def compiled(source: str, names: Sequence[str], device: torch.device) -> list[Kernel]:
    """The kernels (extern "C") of a source, for a device.

    Raises RuntimeError where there is no NVRTC, or where it or the driver refuses.
    """
    torch.cuda.init()
    driver = _library(["nvcuda.dll"] if sys.platform == "win32" else ["libcuda.so.1"])
    binary = _compiled(source, torch.cuda.get_device_capability(device))
    module = ctypes.c_void_p()
    with torch.cuda.device(device):
        torch.cuda.current_stream().synchronize()  # the device's context is the current one
        _check(driver.cuModuleLoadData(ctypes.byref(module), binary))
        return [Kernel(driver, module, name) for name in names]


def _compiled(source: str, capability: tuple[int, int]) -> bytes:
    nvrtc = _nvrtc()
    program = ctypes.c_void_p()
    _check(nvrtc.nvrtcCreateProgram(ctypes.byref(program), source.encode(), None, 0, None, None))
    try:
        option = f"--gpu-architecture=sm_{capability[0]}{capability[1]}".encode()
        if nvrtc.nvrtcCompileProgram(program, 1, (ctypes.c_char_p * 1)(option)):
            size = ctypes.c_size_t()
            _check(nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size)))
            log = ctypes.create_string_buffer(size.value)
            _check(nvrtc.nvrtcGetProgramLog(program, log))
            raise RuntimeError(f"NVRTC refuses a kernel: {log.value.decode()}")
        size = ctypes.c_size_t()
        _check(nvrtc.nvrtcGetCUBINSize(program, ctypes.byref(size)))
        binary = ctypes.create_string_buffer(size.value)
        _check(nvrtc.nvrtcGetCUBIN(program, binary))
        return binary.raw
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


def _nvrtc() -> ctypes.CDLL:
    """NVRTC of PyTorch's version of CUDA: in memory, on the path, or among its packages."""
    major = str(torch.version.cuda).split(".")[0]
    since = "11.2" if major == "11" else f"{major}.0"  # its name has been the same since then
    windows = sys.platform == "win32"
    linux = f"libnvrtc.so.{since.removesuffix('.0')}"
    name = f"nvrtc64_{since.replace('.', '')}_0.dll" if windows else linux
    root = Path(torch.__file__).parent
    pattern = f"*/{'bin' if windows else 'lib'}/{name}"
    beside = [root / "lib" / name, *sorted((root.parent / "nvidia").glob(pattern))]
    return _library([name, *map(str, beside)])


def _library(names: Sequence[str]) -> ctypes.CDLL:
    for name in names:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    raise RuntimeError(f"There is no {os.path.basename(names[0])}.")


def _check(code: int) -> None:
    if code:
        raise RuntimeError(f"CUDA's error {code}")
