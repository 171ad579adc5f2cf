"""`python -m SlideSAMLib`: the same as the `slidesam` command."""

from .cli.main import entry

entry()
