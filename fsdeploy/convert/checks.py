"""What can be wrong with a conversion before its first frame: found at the start, not after hours."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fsdeploy.convert import plugin
from fsdeploy.convert.frame import Frame
from fsdeploy.convert.images import ImageFolderWriter
from fsdeploy.convert.landmarks import FaceIndex
from fsdeploy.convert.plugin import MASK, MaskSource, Writer
from fsdeploy.convert.resume import Ranges, images_there, within
from fsdeploy.convert.settings import Choice
from fsdeploy.convert.sources import FrameSource, ImageFolder, SingleImage, VideoFile, frame_number, frame_times
from fsdeploy.errors import InputError

ONE_IMAGE = "one image"
"""In place of a writer's name: one image is converted into one, not into a folder."""


def check_output(output: Path, source: Path, writer: str, force: bool) -> None:
    """Refuse an output that is the input, and a file that is there already unless `force`.

    Raises:
        InputError: names the output.
    """
    if output.exists() and source.exists() and output.resolve() == source.resolve():
        raise InputError(f"{output} is the input itself: choose another output")
    if writer in ("video", "gif", ONE_IMAGE) and output.exists() and not force:
        raise InputError(f"{output} exists already: choose another name or pass --force to replace it")


def check_faces(faces: FaceIndex, source: FrameSource) -> None:
    """Refuse landmarks of another input: nothing would be swapped and nobody would know why.

    Raises:
        InputError: no face belongs to a frame, by name, by number or by the frame's size.
    """
    keys = source.keys()
    faces.name_only_frame(keys, source.info.path)
    if keys is not None:
        faces.numbers_to_names(keys)
    _check_sizes(faces, source)
    if keys is None and isinstance(source, VideoFile):
        if faces.by_index:
            _check_indices(faces, source)
            return
        faces.check_video(source.path)  # any number will do: a video's keys differ by nothing else
        return
    if faces.by_index:
        faces.check_indices(len(keys or []), source.info.path)
    faces.check_names(keys or [], source.info.path)


def _check_indices(faces: FaceIndex, source: VideoFile) -> None:
    """Refuse landmarks by index that all lie behind a video's end, as far as its length can be known."""
    count = source.info.count
    if count is None or min(map(int, faces.frames), default=0) >= count:
        # Headers only hint at a length: what they rule out is counted.
        times = frame_times(source.path)
        count = count if times is None else len(times)
    if count is not None:
        faces.check_indices(count, source.path)


def _check_sizes(faces: FaceIndex, source: FrameSource) -> None:
    """Refuse faces that were found in frames of a size that no frame of the source has."""
    size = (source.info.height, source.info.width)
    if not faces.sizes or size in faces.sizes.values():
        return
    if isinstance(source, ImageFolder):
        # The images of a folder may differ: one that has the size of its own faces will do, the others fail one by one.
        for index, path in enumerate(source.files):
            key = faces.find(Frame(index, path.name, None, None))
            if key in faces.sizes and faces.sizes[key] == _stored_size(path):
                return
    height, width = next(iter(faces.sizes.values()))
    raise InputError(
        f"{faces.source} was made from frames of {width}x{height}, {source.info.path} has {size[1]}x{size[0]}: "
        "use the frames that the faces were extracted from"
    )


def _stored_size(path: Path) -> tuple[int, int] | None:
    """(height, width) of an image by its header, or None."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            return image.height, image.width
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def check_mask(choice: Choice, faces: FaceIndex) -> None:
    """Refuse the name of a mask that no plugin draws and no face holds: every face would get another one.

    Raises:
        InputError: with the names there are.
    """
    drawn = set(plugin.names(MASK, MaskSource)) - {"stored"}
    # Old files hold drawn masks under the names of those that draw them again; they are not taken from the files.
    stored = {name for entry in faces.frames.values() for face in entry for name in face.masks} - drawn
    wanted = choice.options(MASK, "stored").get("name", "") if choice.mask == "stored" else choice.mask
    if wanted in stored or choice.mask in drawn or (choice.mask == "stored" and not wanted and stored):
        return
    if choice.mask == "stored" and not wanted:
        raise InputError(f"no face of {faces.source} holds a mask: choose from {', '.join(sorted(drawn))}")
    known = sorted({*drawn, *stored})
    near = difflib.get_close_matches(wanted, known, n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"choose from {', '.join(known)}"
    raise InputError(f"no face of {faces.source} holds a mask '{wanted}', and no plugin draws it: {hint}")


def check_whole(chosen: Mapping[str, Any]) -> None:
    """Refuse to convert one image in parts.

    Raises:
        InputError: names the option.
    """
    for option in ("resume", "shard"):
        if chosen[option]:
            raise InputError(f"--{option} is for many frames: leave it out for one image, {chosen['source']}")


def check_resume(writer: Writer, output: Path) -> None:
    """Refuse to go on with an output that is written as a whole.

    Raises:
        InputError: names the output.
    """
    if not isinstance(writer, ImageFolderWriter):
        raise InputError(f"--resume is for folders of images: {output} is written as a whole, leave --resume out")


def check_ranges(ranges: Ranges, source: FrameSource, keep_unchanged: bool = False) -> None:
    """Refuse ranges of frame numbers where a frame has none, and those that hold no frame at all.

    Args:
        keep_unchanged: frames outside the ranges are written, too, so that any range will do.

    Raises:
        InputError: names the frame, or the numbers there are.
    """
    if not ranges:
        return
    keys = source.keys() or []
    unnumbered = [key for key in keys if frame_number(key) is None]
    if unnumbered:
        raise InputError(
            f"{source.info.path / unnumbered[0]} has no number before its extension, which --range counts by: "
            "rename it, move it away, or leave out --range"
        )
    numbers: Sequence[int] = sorted(frame_number(key) or 0 for key in keys)
    if isinstance(source, VideoFile):
        numbers = _numbers_of_video(ranges, source)
    if numbers and not keep_unchanged and not any(within(number, ranges) for number in numbers):
        raise InputError(
            f"{source.info.path}: none of its frames lies in the ranges, their numbers go from {numbers[0]} to "
            f"{numbers[-1]}: choose among these"
        )


def _numbers_of_video(ranges: Ranges, source: VideoFile) -> range:
    """Numbers of its frames, counted where its header says that no range holds one; else empty."""
    count = source.info.count
    if count is None or any(first <= count and last >= 1 for first, last in ranges):
        return range(0)
    times = frame_times(source.path)  # headers only hint at a length
    return range(0) if times is None else range(1, len(times) + 1)


def check_single_image(writer: Writer, folder: Path, source: FrameSource) -> None:
    """Refuse to write an image over the one that it is made from.

    Raises:
        InputError: names it.
    """
    if isinstance(source, SingleImage) and isinstance(writer, ImageFolderWriter) and writer.takes == "frames":
        check_output(folder / writer.file_name(source.files[0].name), source.files[0], "", force=True)


def check_images(writer: Writer, output: Path, source: FrameSource) -> None:
    """Refuse frames that would be written to one file.

    Raises:
        InputError: names two of them.
    """
    if not isinstance(writer, ImageFolderWriter):
        return
    first: dict[str, str] = {}
    for key in source.keys() or []:
        name = writer.file_name(key)
        if first.setdefault(name, key) != key:
            raise InputError(
                f"{source.info.path}: {first[name]} and {key} would both be written as {output / name}: rename one"
            )


def check_nothing_is_there(
    writer: Writer,
    output: Path,
    source: FrameSource,
    part: tuple[int, int | None],
    ranges: Ranges,
    part_name: str = "",
    *,
    resuming: bool = False,
) -> None:
    """Refuse a folder that holds images of the names that would be written, or files that tell of such.

    Args:
        part: first frame index and the one after the last: parts may share a folder.
        part_name: of a part, what its own files are told apart by.
        ranges: of frame numbers that are written; empty: all.
        resuming: they were to be kept, but no report says how they were made.

    Raises:
        InputError: names the first such image.
    """
    if not isinstance(writer, ImageFolderWriter) or not output.is_dir():
        return
    if writer.takes == "frames":
        there = [output / name for _, name in images_there(writer, output, source, part, ranges)]
    else:  # the names of patches say less of their frames than the file of their matrices
        there = writer.records_there(output, part_name)
    if not there:
        return
    if resuming:
        raise InputError(
            f"{there[0]} is there, but no report says how it was made: convert without --resume, with --force"
        )
    raise InputError(f"{there[0]} exists already: choose another folder, --resume to keep it, or --force to replace it")
