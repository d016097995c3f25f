"""A stimulation method and a reporter for AGNES."""

__version__ = "1.2.3"
