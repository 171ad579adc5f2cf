"""Which kernels the time of one encoding goes into."""

from __future__ import annotations

import torch
from torch.profiler import ProfilerActivity, profile

from ..sam.cuda_encoder import quickest_encoder
from ..sam.model import fill_network
from ..sam.network import SlideSam
from .clock import finish

ROWS = 40


def table(network: SlideSam, device: torch.device, dtype: torch.dtype, batch: int) -> str:
    """The operations of one encoding as text, the longest ones first; encoded as models do."""
    encode = quickest_encoder(fill_network(network.config, network.state_dict(), device, dtype))
    size = network.config.image_size
    images = torch.zeros(batch, 3, size, size, device=device)
    activities = [ProfilerActivity.CPU]
    order = "self_cpu_time_total"
    if device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
        order = "self_cuda_time_total"
    with torch.inference_mode():
        encode(images)
        finish(device)
        with profile(activities=activities) as record:
            encode(images)
            finish(device)
    return record.key_averages().table(sort_by=order, row_limit=ROWS)
