"""Keras and TensorFlow for AGNES: loaders that check what they open, and an exporter."""
