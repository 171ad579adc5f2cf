"""CUDA C++ on a CPU: enough of the language for SlideSAM's kernels, and the launches.

Threads of a warp that exchange values are threads of the system; all others run one by one.
"""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path

from torch import Tensor

_BEFORE = r"""
#include <cmath>
#include <cstddef>
#include <cstring>
#include <pthread.h>
#include <thread>
#include <vector>
#define __device__
#define __global__
struct float4 { float x, y, z, w; };
struct ushort4 { unsigned short x, y, z, w; };
struct uint4 { unsigned x, y, z, w; };
struct Place { int x; };
thread_local Place threadIdx, blockIdx, blockDim;
static float __uint_as_float(unsigned bits) { float x; memcpy(&x, &bits, 4); return x; }
static unsigned __float_as_uint(float x) { unsigned bits; memcpy(&bits, &x, 4); return bits; }
static float rsqrtf(float x) { return 1 / std::sqrt(x); }
static pthread_barrier_t barriers[32];
static float exchanged[32][32];
static float __shfl_xor_sync(unsigned, float x, int step) {
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    exchanged[warp][lane] = x;
    pthread_barrier_wait(&barriers[warp]);
    float other = exchanged[warp][lane ^ step];
    pthread_barrier_wait(&barriers[warp]);
    return other;
}
"""
_AFTER = r"""
template <class Work> void launch(int blocks, int threads, bool together, Work work) {
    for (int n = 0; n < threads / 32; n++) pthread_barrier_init(&barriers[n], 0, 32);
    for (int block = 0; block < blocks; block++) {
        std::vector<std::thread> running;
        for (int thread = 0; thread < threads; thread++) {
            auto one = [=] {
                threadIdx.x = thread; blockIdx.x = block; blockDim.x = threads;
                work();
            };
            if (together) running.emplace_back(one); else one();
        }
        for (auto& each : running) each.join();
    }
}
extern "C" void launch_add_and_norm(
    int blocks, int threads, float* tokens, const half_t* delta, const float* weight,
    const float* bias, half_t* out, int count)
{
    launch(blocks, threads, true, [=] { add_and_norm(tokens, delta, weight, bias, out, count); });
}
extern "C" void launch_spread(
    int blocks, int threads, const half_t* y, half_t* queries, half_t* keys, int tokens, int side,
    int channels, int room)
{
    launch(blocks, threads, false,
           [=] { spread(y, queries, keys, tokens, side, channels, room); });
}
"""


def emulated(source: str, folder: Path) -> list:
    """The two kernels of a source as `cuda_compiler.Kernel`s for tensors of the CPU.

    Raises FileNotFoundError where there is no C++ compiler.
    """
    code, library = folder / "kernels.cpp", folder / "kernels.so"
    code.write_text(_BEFORE + source + _AFTER)
    command = ["g++", "-O1", "-std=c++17", "-shared", "-fPIC", "-pthread", "-w"]
    subprocess.run([*command, "-o", str(library), str(code)], check=True)
    loaded = ctypes.CDLL(str(library))
    return [_kernel(getattr(loaded, f"launch_{name}")) for name in ("add_and_norm", "spread")]


def _kernel(launch):
    def start(blocks: int, threads: int, *arguments: Tensor | int | None) -> None:
        values = [
            ctypes.c_int(argument)
            if isinstance(argument, int)
            else ctypes.c_void_p(0 if argument is None else argument.data_ptr())
            for argument in arguments
        ]
        launch(blocks, threads, *values)

    return start
