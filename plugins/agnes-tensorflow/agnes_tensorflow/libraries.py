"""Imports TensorFlow and what converts its graphs. Imported in the child before its doors close."""

from __future__ import annotations

import sys
from importlib import import_module

NEEDED = ("tensorflow", "keras", "tf2onnx.convert", "h5py")
LEFT_OUT = ("matplotlib", "sklearn", "pandas")  # Keras only draws and tabulates with them, and matplotlib would write

sys.modules.update(dict.fromkeys(name for name in LEFT_OUT if name not in sys.modules))  # type: ignore[arg-type]
for _name in NEEDED:
    import_module(_name)
