"""Run an exported file with numpy, OpenCV and onnxruntime. This package never imports torch."""
