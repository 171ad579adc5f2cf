"""Networks compute with settings of their own, whatever others have set for the thread.

In one process with others a thread may compute under autocast, with a default device, or with
gradients. All of that belongs to the thread, so that it can be set aside here and is there again
afterwards. The default number type belongs to the whole process and others rely on it: it is left
alone, and everything that makes numbers says which type it means.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext

import torch


@contextmanager
def own_settings() -> Iterator[None]:
    """Around, or as the decorator of, all that asks a network for something."""
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode())
        stack.enter_context(cpu_by_default())
        for kind in _devices():
            stack.enter_context(_autocast_off(kind))
        yield


def cpu_by_default() -> AbstractContextManager:
    """What is made without saying where is made on the CPU, as it is by itself."""
    # The context would slow down every call of PyTorch: it is there only where it is needed.
    usual = torch.empty(0).device.type == "cpu"
    return nullcontext() if usual else torch.device("cpu")


def _devices() -> Iterator[str]:
    yield "cpu"
    if torch.cuda.is_initialized():
        yield "cuda"
    if torch.backends.mps.is_available():
        yield "mps"


def _autocast_off(kind: str) -> AbstractContextManager:
    try:
        return torch.autocast(kind, enabled=False)
    except RuntimeError:  # older PyTorch knows none on Apple GPUs, so that none can be on
        return nullcontext()
