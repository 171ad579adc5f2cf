"""The Qt half of the Slide-SAM effect; everything else is in SlideSAMBridge.

Slicer executes the effect's own file alone, so what it is made of has to be in a package of another
name. Nothing here imports torch.

- `parameters`: the effect's parameters, their defaults, and reading them
- `gesture`: presses, moves and releases of the mouse to clicks and boxes
- `views`: the slice views and what is drawn over them
- `panel`, `strip`: the options frame, and the plot of the confidence in it
- `models_list`, `help_text`: the models that can be chosen there, and the effect's help
- `pump`: the timer that takes in the worker's results
- `shortcuts`: keys that work while the effect is active
- `reloading`: new code without a new start of Slicer, for developers
"""
