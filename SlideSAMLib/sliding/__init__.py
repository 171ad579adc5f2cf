"""The slide: window after window from the prompted slices to the object's ends. No torch here.

From the ground up:
- `slide_types`: what goes in (the settings) and what comes out (finished slices)
- `next_prompt`, `candidates`: what a window is asked, and which of the answers is taken
- `outline`, `fusion`: how far an outline may move; several views of one slice made into one mask
- `stops`: why a slide ends; `front`: one direction of it, window by window
- `slide`, `reference_scheme`: the whole slide, and the published one, for comparison
- `together`: several objects side by side
- `corrections`, `stretches`, `additions`: clicks that must hold, the slices that a correction may
  change, and those that it adds
"""
