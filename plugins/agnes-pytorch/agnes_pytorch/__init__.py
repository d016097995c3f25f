"""PyTorch weights for AGNES: a loader and an exporter of safetensors."""
