"""Train shared-encoder / two-decoder face-swap autoencoders in torch and deploy them as ONNX."""

__version__ = "0.1.0"
