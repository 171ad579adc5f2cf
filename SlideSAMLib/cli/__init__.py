"""The `slidesam` command: argument parsing and files around the Python interface."""
