"""The tests and what they need; `bash scripts/test` runs them, `-m "not slow"` only the quick ones.

- `test_*.py` here: SlideSAMLib, its commands, the documents and the repository
- `slicer`: the extension, on Slicer's own MRML and VTK classes, by the stand-ins in `host`
- `Data`: what the published network answered, for ours to be compared with
- `Benchmarks`: measurements to be run by hand, and their results

What the tests share:
- `conftest`: fixtures; `cli_tools`: the command line and images for it; `file_server`: downloads
- `fakes`, `builtin_models`: models without weights, and a small one with random weights
- `reference`, `emulated_cuda`: the published network's answers; CUDA kernels on a CPU
- `sliding_helpers`, `sessions`: small slides and sessions
- `evaluation_data`, `training_data`, `training_processes`: small data sets, and runs of several
  processes
"""
