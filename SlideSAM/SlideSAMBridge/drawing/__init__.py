"""What the views show before anything is written: prompts, outlines, previews."""
