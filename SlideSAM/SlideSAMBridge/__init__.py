"""Between a Slicer scene and SlideSAMLib: MRML and VTK, no Qt, no network.

Nothing here imports torch, and importing the package imports nothing at all, so Slicer can load
the module without it. The modules from the ground up:

Words, and the computer:
- `text`, `watch`: translation; observers that go together
- `library`: finds SlideSAMLib, says what is missing when torch is not there
- `installing`, `preferences`: Python packages on request; what the user chose for all scenes
- `checks`: arguments that cannot be used

Scene and voxels:
- `lattice`: the voxel grid of a segmentation and where it lies in the world
- `orientation`: which lattice axis is the slide axis
- `source`: what the model sees, as a copy that worker threads may have
- `marks`: points and boxes in RAS to prompts on slices, and to text that is saved with the segment
- `prompt_set`: the prompts of a segment as the effect keeps them in its tag

Writing:
- `patch`, `editing`: the voxels around a write; the one place that writes into a segmentation
- `segments`, `contents`: a segment's name, colour and saved marks; what a segmentation has
- `segmenting`, `editors`: the whole way from marks to a segment; a try of it without a step of undo
- `neighbours`: what other segments have of some voxels, and lose to a write

Working aside:
- `garbage`, `worker`: what may not happen on the worker thread; that one thread
- `shelf`, `work`: the loaded model; what the worker does for a segment
- `jobs`, `readiness`: work and its results; what is done before anything is marked
- `corrected`: what corrections have made of their marks, kept with a result
- `retreat`, `shortage`: where the memory of a GPU, or of the computer, is too small

The effect, and segmenting all:
- `dashes`, `overlay`, `slice_views`, `preview`: what is shown before anything is written
- `options`, `limits`, `prompt_book`: what one effect is set to, how far it may slide, its prompts
- `applying`: a result into the selected segment, through the effect
- `waiting`: results of segments and effects that are not chosen
- `interaction`, `scene_watch`: all that a person does with the effect, and what the scene does
- `batch`: all prompted segments of a segmentation in one go

For trying it:
- `phantom`: the sample volume
- `selftest`: the scene and the small model of the module's self-test
- `offscreen`, `render`: a scene and views outside Slicer, and pictures made with them
"""
