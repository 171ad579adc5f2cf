"""Slide-SAM, SAM and MedSAM networks: their files, their parts, and how they answer the slide."""
