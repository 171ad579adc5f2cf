"""Two kernels for the encoder on CUDA GPUs: what PyTorch does in several passes, in one.

Each has a twin in PyTorch's own operations (`plain_...`), which says what it computes, and which
is what runs where the kernels cannot be had.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from .cuda_compiler import Kernel, compiled

THREADS = 256
_WARP, _FOUR, _EIGHT = 32, 4, 8  # threads; floats and halves that a thread moves at once
_log = logging.getLogger(__name__)

_SOURCE = r"""
typedef unsigned short half_t;

#if BFLOAT16
__device__ float wide(half_t x) { return __uint_as_float((unsigned int)x << 16); }
__device__ half_t narrow(float x) {
    unsigned int bits = __float_as_uint(x);
    return (half_t)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);  // to nearest, ties to even
}
#else
__device__ float wide(half_t x) {
    float y; asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x)); return y;
}
__device__ half_t narrow(float x) {
    half_t y; asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y) : "f"(x)); return y;
}
#endif

__device__ float over_warp(float x) {
    for (int step = 16; step; step /= 2) x += __shfl_xor_sync(0xffffffffu, x, step);
    return x;
}

// One warp for each token; its channels stay in the warp's registers.
extern "C" __global__ void add_and_norm(
    float* tokens, const half_t* delta, const float* weight, const float* bias, half_t* out,
    int count)
{
    int token = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (token >= count) return;
    const int parts = WIDTH / 128;
    float4* row = (float4*)(tokens + (size_t)token * WIDTH);
    float4 v[parts];
    float sum = 0;
    #pragma unroll
    for (int n = 0; n < parts; n++) {
        v[n] = row[lane + 32 * n];
        if (delta) {
            ushort4 d = ((const ushort4*)(delta + (size_t)token * WIDTH))[lane + 32 * n];
            v[n].x += wide(d.x); v[n].y += wide(d.y); v[n].z += wide(d.z); v[n].w += wide(d.w);
            row[lane + 32 * n] = v[n];
        }
        sum += v[n].x + v[n].y + v[n].z + v[n].w;
    }
    float mean = over_warp(sum) / WIDTH, squares = 0;
    #pragma unroll
    for (int n = 0; n < parts; n++) {
        v[n].x -= mean; v[n].y -= mean; v[n].z -= mean; v[n].w -= mean;
        squares += v[n].x * v[n].x + v[n].y * v[n].y + v[n].z * v[n].z + v[n].w * v[n].w;
    }
    float scale = rsqrtf(over_warp(squares) / WIDTH + 1e-6f);
    #pragma unroll
    for (int n = 0; n < parts; n++) {
        float4 w = ((const float4*)weight)[lane + 32 * n], b = ((const float4*)bias)[lane + 32 * n];
        ushort4 y;
        y.x = narrow(v[n].x * scale * w.x + b.x); y.y = narrow(v[n].y * scale * w.y + b.y);
        y.z = narrow(v[n].z * scale * w.z + b.z); y.w = narrow(v[n].w * scale * w.w + b.w);
        ((ushort4*)(out + (size_t)token * WIDTH))[lane + 32 * n] = y;
    }
}

// One thread for eight channels of one head of one token, of the queries or of the keys.
extern "C" __global__ void spread(
    const half_t* y, half_t* queries, half_t* keys, int tokens, int side, int channels, int room)
{
    int across = room / 8, each = across + channels / 8;
    size_t place = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    int part = place % each, head = place / each % HEADS;
    size_t token = place / each / HEADS;
    if (token >= tokens) return;
    int entries = 2 * side - 1, length = 3 * WIDTH + 2 * HEADS * entries;
    const half_t* from = y + token * length;
    half_t* query = queries + (token * HEADS + head) * room;
    half_t* key = keys + (token * HEADS + head) * room;
    if (part >= across) {
        int first = 8 * (part - across);
        *(uint4*)(key + first) = *(const uint4*)(from + WIDTH + head * channels + first);
        return;
    }
    int first = 8 * part;
    if (first + 8 <= channels) {
        *(uint4*)(query + first) = *(const uint4*)(from + head * channels + first);
        return;
    }
    int spot = token % (side * side);
    const half_t* rows = from + 3 * WIDTH + head * entries + side - 1 - spot / side;
    const half_t* columns = from + 3 * WIDTH + (HEADS + head) * entries + side - 1 - spot % side;
    alignas(16) half_t found[8];
    for (int n = 0; n < 8; n++) {
        int channel = first + n - channels;
        found[n] = channel < side ? rows[channel]
            : channel < 2 * side ? columns[channel - side] : (half_t)0;
    }
    *(uint4*)(query + first) = *(uint4*)found;
}
"""


def plain_add_and_norm(
    tokens: Tensor, delta: Tensor | None, weight: Tensor, bias: Tensor, out: Tensor
) -> None:
    """tokens += delta; out = their layer norm: (count, C), float32 and half precision."""
    if delta is not None:
        tokens.add_(delta)
    out.copy_(F.layer_norm(tokens, tokens.shape[-1:], weight, bias, 1e-6))


def plain_spread(y: Tensor, queries: Tensor, keys: Tensor, side: int) -> None:
    """Queries with their biases, and keys, out of a widened projection, see `cuda_encoder`.

    y : (N, tokens, length); queries, keys : (N, tokens, heads, room), of which the channels of
    the keys beyond the projection's are left alone.
    """
    count, tokens, length = y.shape
    heads, entries = queries.shape[2], 2 * side - 1
    width = (length - 2 * heads * entries) // 3
    channels = width // heads
    parts = y[..., : 3 * width].view(count, tokens, 3, heads, channels)
    queries[..., :channels] = parts[:, :, 0]
    keys[..., :channels] = parts[:, :, 1]
    grid = queries.view(count, side, side, heads, -1)
    shape = (count, side, side, heads, side)
    first = y.storage_offset() + 3 * width + side - 1  # entries of a query in row or column 0
    down, across = side * length, length
    strides = (tokens * length, down - 1, across, entries, 1)
    grid[..., channels : channels + side] = y.as_strided(shape, strides, first)
    strides = (tokens * length, down, across - 1, entries, 1)
    first += heads * entries
    grid[..., channels + side : channels + 2 * side] = y.as_strided(shape, strides, first)


@dataclass(frozen=True)
class Operations:
    """How the encoder does these two things; see `plain_add_and_norm` and `plain_spread`."""

    add_and_norm: Callable[[Tensor, Tensor | None, Tensor, Tensor, Tensor], None]
    spread: Callable[[Tensor, Tensor, Tensor, int], None]


PLAIN = Operations(plain_add_and_norm, plain_spread)


def operations(width: int, heads: int, dtype: torch.dtype, device: torch.device) -> Operations:
    """Kernels for encoders of this width, once they have proved themselves; else `PLAIN`."""
    halves = (torch.bfloat16, torch.float16)
    fits = width % (_WARP * _FOUR) == 0 and width % (_EIGHT * heads) == 0
    fits = fits and heads % _FOUR == 0  # whole parts of eight in every line of a projection
    if device.type != "cuda" or dtype not in halves or not fits or torch.version.hip:
        return PLAIN
    try:
        source = source_for(width, heads, dtype)
        found = _wrapped(*compiled(source, ("add_and_norm", "spread"), device))
        _prove(found, width, heads, dtype, device)
    except (RuntimeError, OSError, AttributeError) as error:
        _log.warning("SlideSAM encodes without kernels of its own, slower: %s", error)
        return PLAIN
    return found


def source_for(width: int, heads: int, dtype: torch.dtype) -> str:
    """The kernels of an encoder of this width, with so many heads, in half precision."""
    values = {"WIDTH": width, "HEADS": heads, "BFLOAT16": int(dtype == torch.bfloat16)}
    return "".join(f"#define {name} {value}\n" for name, value in values.items()) + _SOURCE


def _wrapped(add_and_norm: Kernel, spread: Kernel) -> Operations:
    def norm(
        tokens: Tensor, delta: Tensor | None, weight: Tensor, bias: Tensor, out: Tensor
    ) -> None:
        blocks = -(-len(tokens) * _WARP // THREADS)
        add_and_norm(blocks, THREADS, tokens, delta, weight, bias, out, len(tokens))

    def spread_out(y: Tensor, queries: Tensor, keys: Tensor, side: int) -> None:
        count, tokens, length = y.shape
        heads, room = queries.shape[2:]
        channels = (length - 2 * heads * (2 * side - 1)) // (3 * heads)
        every = count * tokens * heads * (room // _EIGHT + channels // _EIGHT)
        sizes = (count * tokens, side, channels, room)
        spread(-(-every // THREADS), THREADS, y, queries, keys, *sizes)

    return Operations(norm, spread_out)


_PROVED = ("norm", "norm of a sum", "sum", "queries", "keys")


def _prove(
    found: Operations, width: int, heads: int, dtype: torch.dtype, device: torch.device
) -> None:
    """Raise RuntimeError where the kernels do not answer what PyTorch's operations answer."""
    generator = torch.Generator(device).manual_seed(1)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, dtype=torch.float32, generator=generator, device=device)

    tokens, delta = 3 * random(37, width) + 1, random(37, width).to(dtype)
    weight, bias = random(width), random(width)
    side, channels = 6, width // heads
    room = channels + 2 * side + -(channels + 2 * side) % _EIGHT
    y = random(2, side * side, 3 * width + 2 * heads * (2 * side - 1)).to(dtype)
    answers = []
    for ways in (found, PLAIN):
        own, out = tokens.clone(), torch.zeros_like(delta)
        ways.add_and_norm(own, None, weight, bias, out)
        first = out.clone()
        ways.add_and_norm(own, delta, weight, bias, out)
        queries = torch.zeros(2, side * side, heads, room, dtype=dtype, device=device)
        keys = torch.ones_like(queries)
        ways.spread(y, queries, keys, side)
        answers.append((first, out, own, queries, keys))
    for name, one, other in zip(_PROVED, *answers, strict=True):
        most = float((one.float() - other.float()).abs().max())
        if not most <= 0.03 * float(other.float().abs().max()):
            raise RuntimeError(f"the {name} of a kernel: wrong by {most:.3g}")
