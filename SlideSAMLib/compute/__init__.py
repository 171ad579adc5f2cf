"""Where networks compute, how precisely, and with how much memory."""
