"""Between a Slicer scene and SlideSAMLib: MRML and VTK, no Qt, no network.

Nothing here imports torch, and importing the package imports nothing at all, so Slicer can load
the module without it. The rooms and their modules from the ground up:

Words:
- `text`, `watch`: translation; observers that go together
- `checks`: arguments that cannot be used

The computer, in `setup`:
- `library`: finds SlideSAMLib, says what is missing when torch is not there
- `installing`, `preferences`: Python packages on request; what the user chose for all scenes

Voxels, marks and segments, in `scene`, which has an overview of its own.

Working aside, in `tasks`:
- `garbage`, `worker`: what may not happen on the worker thread; that one thread
- `shelf`, `work`: the loaded model; what the worker does for a segment
- `corrected`: what corrections have made of their marks, kept with a result
- `retreat`, `shortage`: where the memory of a GPU, or of the computer, is too small

Shown before anything is written, in `drawing`:
- `dashes`, `overlay`, `slice_views`: outlines and prompts, and the views that show them
- `preview`: the masks of a result

The effect without its widgets, in `effect`:
- `options`, `limits`, `prompt_book`: what one effect is set to, how far it may slide, its prompts
- `jobs`, `readiness`: work and its results; what is done before anything is marked
- `applying`: a result into the selected segment, through the effect
- `waiting`: results of segments and effects that are not chosen
- `interaction`, `scene_watch`: all that a person does with the effect, and what the scene does

Segmenting all, and for trying it:
- `batch`: all prompted segments of a segmentation in one go
- `phantom`: the sample volume
- `selftest`: the scene and the small model of the module's self-test
- `offscreen`, `render`, in `pictures`: a scene and views outside Slicer, and pictures of them
"""
