"""What the computer has: SlideSAMLib, Python packages, and what the user chose for all scenes."""
