"""The slide: window after window from the prompted slices to the object's ends. No torch here.

From the ground up:
- `slide_types`: what goes in (the settings) and what comes out (finished slices)
- `next_prompt`, `candidates`: what a window is asked, and which of the answers is taken
- `corrections`: clicks that must hold
- `outline`, `fusion`: how far an outline may move; several views of one slice made into one mask
- `stops`: why a slide ends; `front`: one direction of it, window by window
- `stretches`: the slices between prompts, and which of them a correction may change
- `seen`: the intensity window in which a model sees what is prompted
- `state`: what a slide is asked for, and how far it has come
- `slide`, `reference_scheme`: the whole slide, and the published one, for comparison
- `together`: several objects side by side
- `additions`: slices that a correction adds
"""
