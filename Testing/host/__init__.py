"""Stand-ins for the Slicer application, so that what runs in Slicer runs in plain pytest.

Real: MRML, segmentation logic, displayable managers, slicer.util (slicer-core). Made here:
- `headless`, `i18n`: the global objects; translation
- `pythonqt_rules`, `panel_widgets`: Qt, and widgets of CTK and MRML, with PythonQt's rules
- `cursor`, `scripted_effect`, `effect_factory`, `pythonqt_host`: the editor's effect object, and
  how effects are loaded, cloned and registered
- `module_host`: scripted modules
- `views`: slice and 3D views with simulated mouse and keys
- `showcase`, `pictures`: the effect at work, for timings and the pictures of README
"""
