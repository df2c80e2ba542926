"""Run an exported file with numpy, OpenCV and onnxruntime. This package never imports torch.

Example:
    >>> from fsdeploy.runtime import Swapper
    >>> swapped = Swapper("a2b.onnx")(frame, landmarks)
"""

from fsdeploy.runtime.metadata import SwapMetadata
from fsdeploy.runtime.swapper import Swapper

__all__ = ["SwapMetadata", "Swapper"]
