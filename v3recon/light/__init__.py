"""Reconstruction from exported ONNX files: numpy, OpenCV and onnxruntime, without torch."""
