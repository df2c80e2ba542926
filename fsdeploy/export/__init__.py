"""From a model folder to an ONNX file that is proven equal to it."""

from fsdeploy.export.export import ExportReport, export_model
from fsdeploy.export.settings import ExportSettings

__all__ = ["ExportReport", "ExportSettings", "export_model"]
