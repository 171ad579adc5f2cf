"""What SlideSAM costs on this machine: times, memory, and the originals beside them."""
