"""Scanning a zoo without telling the scanner anything, and scoring what it says."""
