"""Working aside: one thread, the model it keeps, and what it does where memory is short."""
