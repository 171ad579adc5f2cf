"""The scene: where voxels lie, what a person marked, and the one place that writes.

The modules from the ground up:

Voxels:
- `lattice`: the voxel grid of a segmentation and where it lies in the world
- `orientation`: which lattice axis is the slide axis
- `editing`: the one place that writes into a segmentation
- `patch`: the voxels around a write
- `source`: what the model sees, as a copy that worker threads may have
- `neighbours`: what other segments have of some voxels, and lose to a write

Marks and segments:
- `marks`: points and boxes in RAS to prompts on slices, and to text that is saved with the segment
- `prompt_set`: the prompts of a segment as the effect keeps them in its tag
- `segments`: a segment's name, colour and saved marks
- `contents`: what a segmentation has
- `segmenting`: the whole way from marks to a segment
- `editors`: a try of that without a step of undo
"""
