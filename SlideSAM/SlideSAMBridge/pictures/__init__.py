"""A scene and views outside Slicer, and pictures made with them; needs slicer-core."""
