"""Abstraction methods: groups of neurons that behave alike, and the neurons that stand for them."""
