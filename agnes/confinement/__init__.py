"""A child process with closed doors, for the work that may run code from a model file.

from agnes import confinement

layers = confinement.run("agnes_onnx.session:outputs", path, allow_read=[path], prepare=["onnxruntime"])
"""

from agnes.confinement.limits import Limits
from agnes.confinement.parent import run, strength
from agnes.confinement.strength import Strength

__all__ = ["Limits", "Strength", "run", "strength"]
