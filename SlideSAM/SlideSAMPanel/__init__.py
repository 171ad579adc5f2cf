"""The panel of the SlideSAM module: Qt widgets, one section a file."""
