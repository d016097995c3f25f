"""Stimulation methods: which neurons, set to a value, move every image to one class."""
