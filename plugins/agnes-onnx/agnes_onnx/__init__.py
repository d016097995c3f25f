"""ONNX for AGNES: a loader that checks what it opens, and an exporter."""
