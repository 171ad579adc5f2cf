"""Training of the built-in model, and fine-tuning of that and larger ones.

From the ground up:
- `settings`, `config`: what a run is told
- `generators`, `fields`: random numbers that a later process carries on with; noise and blur
- `shapes`, `nnunet`, `datasets`, `sources`: invented and real labels, and where they come from
- `slabs`, `appearance`, `mixture`: a few slices of one object, their greys, and drawing them
- `simulated_user`: boxes, points and clicks made from the truth
- `rollouts`, `losses`, `slides`, `builtin_task`: the built-in network slides over slabs and learns
- `sam_windows`, `sam_rollouts`, `sam_losses`, `sam_task`: the same for SAM networks
- `optimiser`, `checkpoints`, `curve`, `curve_log`, `selection`: AdamW and Muon, what a killed run
  goes on from, the log, and the best weights
- `loop`: the training itself; `finetune`: a model of one's own with its card
- `command`, `finetune_command`: the command line
"""
