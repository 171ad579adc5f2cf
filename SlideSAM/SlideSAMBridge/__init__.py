"""Between a Slicer scene and SlideSAMLib: MRML and VTK, no Qt, no network.

Nothing here imports torch, and importing the package imports nothing at all, so Slicer can load
the module without it. The modules from the ground up:

- `library`: finds SlideSAMLib, says what is missing when torch is not there
- `checks`: arguments that cannot be used
- `lattice`: the voxel grid of a segmentation and where it lies in the world
- `orientation`: which lattice axis is the slide axis
- `marks`: points and boxes in RAS to prompts on slices, and to text that is saved with the segment
- `editing`: the one place that writes into a segmentation
- `segments`: a segment's name, colour and saved marks
- `segmenting`: the whole way from marks to a segment
- `prompt_set`, `prompt_book`: the prompts of a segment as the effect keeps them in its tag
- `neighbours`: what other segments have of some voxels, and lose to a write
- `source`: what the model sees, as a copy that worker threads may have
- `worker`, `work`, `jobs`: the one worker thread, what it does for a segment, and its results
- `corrected`: what corrections have made of their marks, kept with a result
- `retreat`, `shortage`: where the memory of a GPU, or of the computer, is too small
- `waiting`: results of segments and effects that are not chosen
- `preview`, `overlay`, `slice_views`: what is shown before anything is written
- `applying`: a result into the selected segment, through the effect
- `interaction`, `scene_watch`: all that a person does with the effect, and what the scene does
- `watch`, `text`: observers that go together; translation
- `selftest`: the scene and the small model of the module's self-test
- `offscreen`, `render`: a scene and views outside Slicer, and pictures made with them
"""
