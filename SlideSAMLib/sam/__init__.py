"""Slide-SAM, SAM and MedSAM networks: their files, their parts, and how they answer the slide.

From the ground up:
- `modeling`: the classes of segment-anything; `network`: the three-slice network made of them
- `linears`, `upscaling`, `relative_positions`: its parts by quicker ways with the same results
- `attention`: its attention, by `tiled_attention` or `kernel_attention` on a CPU
- `cuda_compiler`, `cuda_kernels`, `cuda_encoder`: the encoder on NVIDIA GPUs
- `lora`, `adapters`, `architecture`, `checkpoints`: files of every known kind
- `prompts`, `encoding`, `candidates`: prompts and windows in, masks out
- `model`: all of it behind the protocol of the slide
"""
