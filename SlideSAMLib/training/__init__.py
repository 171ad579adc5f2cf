"""Training of the built-in model: synthetic and real volumes, rollouts, the loop."""
