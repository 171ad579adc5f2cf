"""The panel of the SlideSAM module, one section a file, and the self-test of the module."""
