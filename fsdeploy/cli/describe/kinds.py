"""Which kind a file or folder is of, told by its content where that can be."""

from __future__ import annotations

from pathlib import Path

from fsdeploy.cli.describe.facts import Facts
from fsdeploy.errors import InputError

_HDF5 = b"\x89HDF\r\n\x1a\n"
_PNG = b"\x89PNG\r\n\x1a\n"
_TEXT = (".json", ".jsonl", ".csv")


def describe(path: Path) -> Facts:
    """Everything known about a file or folder; "kind" says what it is.

    Raises:
        InputError: it does not exist, cannot be read, or is nothing that fsdeploy knows.
    """
    try:
        kind, facts = _folder(path) if path.is_dir() else _file(path)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}: name a folder or a file") from error
    return {"path": str(path), "kind": kind, **facts}


def _folder(path: Path) -> tuple[str, Facts]:
    from fsdeploy.cli.describe import faces, media, models
    from fsdeploy.model.saved_set import model_names_in

    names = [entry.name for entry in path.iterdir()]
    if model_names_in(path) or any(name.endswith((".h5", ".keras")) or ".safetensors" in name for name in names):
        return "model folder", models.model_folder(path)
    if (found := faces.face_folder(path)) is not None:
        return "folder of faces", found
    if (found := media.image_folder(path)) is not None:
        return "folder of images", found
    raise InputError(f"{path} holds no model, no faces and no images: name another folder, or a file")


def _file(path: Path) -> tuple[str, Facts]:
    from fsdeploy.cli.describe import faces, json_file, media, models, onnx_file

    with path.open("rb") as stream:
        start = stream.read(9)
    suffix = path.suffix.lower()
    if start.startswith(_PNG):
        return media.png(path)
    if start.startswith((_HDF5, b"PK")):
        return "legacy model", models.legacy(path)
    if suffix in (".onnx", ".dfm"):
        return "ONNX model", onnx_file.onnx_file(path)
    if suffix in _TEXT or path.name.endswith(("_state.json.bk", "_state.json.new", "_state.json.bk.new")):
        return json_file.json_file(path)
    if ".safetensors" in path.suffixes or start[8:] == b"{":
        return "safetensors", models.safetensors(path)
    if suffix == ".fsa":
        return "alignments", faces.alignments(path)
    from fsdeploy.images import VIDEO_EXTENSIONS

    if suffix in media.image_kinds():
        return "image", media.image(path)
    if suffix in VIDEO_EXTENSIONS or suffix == ".gif":
        return "video", media.video(path)
    raise InputError(
        f"{path} is nothing that fsdeploy knows: inspect a model, .onnx, .safetensors, faces, .fsa, a picture, a video "
        f"or one of its own .json files"
    )
