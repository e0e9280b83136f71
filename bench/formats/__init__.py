"""Models in other formats: files of ONNX, quantised weights."""
