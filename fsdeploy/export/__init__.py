"""From a model folder to an ONNX file that is proven equal to it."""
