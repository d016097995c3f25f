"""Trigger-activated change: how much a trigger moves each channel."""

from agnes.measuring import outstanding, trigger_activated_change, z_scores

__all__ = ["outstanding", "trigger_activated_change", "z_scores"]
