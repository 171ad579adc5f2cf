"""The demo: a real MR brain, one box and one point, files and pictures to look at."""
