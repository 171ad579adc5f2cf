"""The built-in model: small enough to ship, trained from scratch, prompts mixed in early."""
