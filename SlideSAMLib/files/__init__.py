"""Files that must be whole and safe: downloads, locks, tensors in which nothing is executed."""
