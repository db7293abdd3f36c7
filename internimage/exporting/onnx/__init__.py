"""ONNX files: standard operators only, any of opset 16 to 23."""
