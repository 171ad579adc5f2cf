"""Stand-ins for the Slicer application, so that what runs in Slicer runs in plain pytest.

Real: MRML, segmentation logic, displayable managers, slicer.util (slicer-core). Made here: the
global objects, Qt with PythonQt's rules, the Segment Editor's effect object, scripted modules.
"""
