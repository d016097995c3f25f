"""Data, architectures, attacks and training with known truth, and the demo that AGNES carries."""

__version__ = "0.1.0"
