"""Data sets in one shape: the embedded signs, and readers for those that people have on their disks."""

from agnes_zoo.data.choosing import NAMES, dataset
from agnes_zoo.data.dataset import Dataset
from agnes_zoo.data.sheets import sheet

__all__ = ["NAMES", "Dataset", "dataset", "sheet"]
