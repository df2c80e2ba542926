"""Which faces are in which frame: alignments files, folders of extracted faces, plain JSON and CSV.

All of them are read only. docs/formats/landmarks.md documents the plain formats.
"""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fsdeploy.convert.frame import Frame
from fsdeploy.convert.landmark_files import ONLY_FRAME, read_plain_landmarks
from fsdeploy.errors import FsdeployError, InputError, NotAFaceError
from fsdeploy.faces.alignments import read_alignments
from fsdeploy.faces.png import read_header
from fsdeploy.faces.records import FaceRecord

logger = logging.getLogger(__name__)


@dataclass
class FaceIndex:
    """Faces by frame. Built once, asked for every frame."""

    source: Path
    frames: dict[str, list[FaceRecord]]
    """Frame key (file name) or frame index as text -> faces in their order."""
    by_index: bool = False
    """True when the keys are frame indices from 0, not names."""
    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Frame key -> (height, width) that the landmarks were found in, where known."""
    used: set[str] = field(default_factory=set)
    """Keys that a frame asked for and found."""
    problems: list[str] = field(default_factory=list)
    """Files that should hold a face and cannot be read, one line each."""
    folder: Path | None = None
    """The folder of extracted faces that says which faces there are, alone or with an alignments file."""

    def __post_init__(self) -> None:
        self._index_keys()

    def _index_keys(self) -> None:
        self._by_stem: dict[str, str] = {}
        for key in self.frames:
            self._by_stem.setdefault(_stem(key), key)
        self._by_number: dict[int, str] = {}
        for key in self.frames if self.by_index else ():
            if self._by_number.setdefault(int(key), key) != key:
                raise InputError(f"{self.source} names frame {int(key)} twice, as '{key}' too: write each frame once")

    def find(self, frame: Frame) -> str | None:
        """The key of the frame's record, by full name, else by name without extension; None if there is none."""
        if self.by_index:
            return self._by_number.get(frame.index)
        if frame.key in self.frames:
            return frame.key
        return self._by_stem.get(_stem(frame.key))

    def faces(self, frame: Frame) -> list[FaceRecord]:
        """Faces of a frame, [] where there are none.

        Raises:
            InputError: the landmarks were found in frames of another size.
        """
        key = self.find(frame)
        if key is None:
            return []
        self.used.add(key)
        size = self.sizes.get(key)
        if size is not None and frame.image is not None and size != frame.image.shape[:2]:
            raise InputError(
                f"{self.source}: the landmarks of {frame.key} were found at {size[1]}x{size[0]}, the frame is "
                f"{frame.image.shape[1]}x{frame.image.shape[0]}: use the frames that the faces were extracted from"
            )
        return self.frames[key]

    def numbers_to_names(self, names: Sequence[str]) -> None:
        """Decide whether whole numbers mean the frames of a folder by their names or by their places from 0.

        Args:
            names: file names of the frames, in order.

        Raises:
            InputError: they can mean both, and different frames.
        """
        if not self.by_index:
            return
        places = {_stem(name): place for place, name in enumerate(names)}
        named = [key for key in self.frames if key in places]
        if any(key != str(int(key)) for key in named):  # nobody writes a place as 0007
            self.by_index = False
        elif len(named) == len(self.frames) and any(places[key] != int(key) for key in named):
            key = next(key for key in named if places[key] != int(key))
            raise InputError(
                f"{self.source}: '{key}' is the name of a frame, and the place (from 0) of another: write names with "
                f"their extension, '{names[places[key]]}'"
            )

    def name_only_frame(self, names: Sequence[str] | None, source: Path) -> None:
        """Give faces of which no frame is named to the one frame there is.

        Args:
            names: file names of the frames; None for a video.

        Raises:
            InputError: there are more frames than one.
        """
        if ONLY_FRAME not in self.frames:
            return
        if names is None or len(names) != 1:
            raise InputError(
                f"{self.source} names no frame, which will do for a single image only, not for {source}: "
                "write a list of faces per frame, as docs/formats/landmarks.md describes"
            )
        self.frames = {names[0]: self.frames[ONLY_FRAME]}
        self._index_keys()

    def check_indices(self, count: int, source: Path) -> None:
        """Refuse landmarks by index of which none lies in a source of `count` frames.

        Raises:
            InputError: all lie behind its end.
        """
        if self.by_index and self._by_number and min(self._by_number) >= count:
            raise InputError(
                f"{self.source} belongs to other frames than {source}: it begins with frame {min(self._by_number)}, "
                f"counted from 0, of {count}"
            )

    def check_names(self, keys: Iterable[str], source: Path) -> None:
        """Refuse landmarks of which none belongs to a folder of images.

        Raises:
            InputError: no key matches any of `keys`.
        """
        if self.by_index:
            return
        stems = set(self._by_stem)
        if not any(_stem(key) in stems for key in keys):
            example = next(iter(self.frames), "nothing")
            raise InputError(
                f"{self.source} belongs to other frames than {source} (it names '{example}'): "
                "give the landmarks of this input, or name its images as they were when the landmarks were made"
            )

    def check_video(self, video: Path) -> None:
        """Refuse landmarks of other videos by their names; one that differs in case only is taken for the same.

        Raises:
            InputError: no frame of theirs carries the name of `video`.
        """
        stems = {name: None for name in map(_video_stem, self.frames) if name}
        if video.stem in stems:
            return
        alike = [name for name in stems if name.casefold() == video.stem.casefold()]
        if len(alike) == 1:
            self._rename_video(alike[0], video.stem)
            logger.warning("%s names a video '%s': taken to be %s", self.source, alike[0], video.name)
            return
        example = next(iter(self.frames), "nothing")
        wrong = f"{self.source} belongs to other frames than {video} (it names '{example}')"
        if not stems:
            raise InputError(f"{wrong}, which is no frame of a video: give the landmarks of this input")
        names = list(stems)[:3]
        called = " or ".join(f"'{name}'" for name in names) + (" and others" if len(stems) > len(names) else "")
        raise InputError(
            f"{wrong}: it was made from a video called {called}; give the landmarks of {video.name}, or, if it is that "
            f"video, rename {video.name} to {names[0]}{video.suffix}"
        )

    def _rename_video(self, old: str, new: str) -> None:
        names = {key: new + key[len(old) :] for key in self.frames if _video_stem(key) == old}
        self.frames = {names.get(key, key): faces for key, faces in self.frames.items()}
        self.sizes = {names.get(key, key): size for key, size in self.sizes.items()}
        self._index_keys()

    def keep_only(
        self, chosen: FaceIndex, positions: Mapping[str, set[int]], places: Mapping[str, Sequence[int]]
    ) -> None:
        """Drop every face that `chosen` does not hold.

        Args:
            positions: frame stem -> places in the alignments file of the faces of `chosen`.
            places: frame -> place in the file of each of its faces, for frames of which some were skipped.
        """
        self.problems += chosen.problems
        self.folder = chosen.folder
        for key, faces in self.frames.items():
            wanted = positions.get(_stem(key), set())
            numbers = places.get(key, range(len(faces)))
            self.frames[key] = [face for number, face in zip(numbers, faces, strict=True) if number in wanted]
        kept = sum(map(len, self.frames.values()))
        if not kept:
            raise InputError(f"no face of {chosen.source} occurs in {self.source}: they belong to different frames")

    def remedy_for_gaps(self) -> str:
        """Why frames between those with faces may have none, and what gives them theirs; empty where none is missed.

        Faces for training are often only some of a clip's; an alignments file alone is taken to be whole.
        """
        if self.folder is None:
            return ""
        if self.folder == self.source:
            return "an alignments file usually holds the faces of all frames: give it with --alignments"
        return f"{self.source} without --faces gives every face there is"

    def unused(self) -> list[str]:
        """Keys with faces that no frame asked for."""
        return sorted(key for key, faces in self.frames.items() if faces and key not in self.used)

    @property
    def face_count(self) -> int:
        return sum(map(len, self.frames.values()))


def _stem(key: str) -> str:
    return Path(key).stem


def _video_stem(key: str) -> str:
    """What the video is called that a frame's name comes from (`<stem>_<number>`); empty where it comes from none."""
    found = re.fullmatch(r"(.+)_\d{6,}", _stem(key))
    return found.group(1) if found else ""


def load_faces(
    source: Path, alignments: Path | None = None, faces: Path | None = None, landmarks: Path | None = None
) -> FaceIndex:
    """The faces of an input.

    `alignments` (.fsa) with `faces` (a folder of extracted faces): only faces that are still in the folder are kept.
    `faces` alone drives the conversion by itself, as does `landmarks` (.json, .jsonl or .csv). With none of them the
    alignments file beside the source is taken.

    Raises:
        InputError: nothing given and nothing found, or unreadable.
    """
    if landmarks is not None:
        if alignments is not None or faces is not None:
            raise InputError("give either --landmarks or --alignments/--faces, not both")
        return read_landmarks(landmarks)
    if alignments is None and faces is None:
        alignments = default_alignments(source)
        if not alignments.exists():
            raise InputError(
                f"no faces are known for {source}: give --faces (folder of extracted faces), --alignments (.fsa) or "
                f"--landmarks (.json/.csv); {alignments} does not exist"
            )
    if alignments is None:
        assert faces is not None
        return read_face_folder(faces)[0]
    known = read_alignments(alignments)
    index = FaceIndex(alignments, dict(known.frames))
    if faces is not None:
        chosen, positions = read_face_folder(faces)
        index.keep_only(chosen, positions, known.positions)
    return index


def default_alignments(source: Path) -> Path:
    """Where an alignments file lies beside its source."""
    if source.is_dir():
        return source / "alignments.fsa"
    return source.with_name(f"{source.stem}_alignments.fsa")


def read_face_folder(folder: Path) -> tuple[FaceIndex, dict[str, set[int]]]:
    """Faces of a folder of extracted PNGs by source frame, and their positions in it (frame stem -> face indices).

    A damaged file costs its own face only: it is named in the log and in `FaceIndex.problems`.

    Raises:
        InputError: the folder is missing or holds no extracted face.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder: give the folder of extracted faces")
    grouped: dict[str, list[tuple[int, FaceRecord]]] = defaultdict(list)
    sizes: dict[str, tuple[int, int]] = {}
    problems: list[str] = []
    passed_over = 0
    for path in sorted(entry for entry in folder.glob("*.png") if not entry.name.startswith(".")):
        try:
            header = read_header(path)
        except NotAFaceError:
            passed_over += 1
            continue
        except FsdeployError as error:
            logger.warning("%s; its face is not swapped", error)
            problems.append(str(error))
            continue
        origin = header.source
        grouped[origin.source_filename].append((origin.face_index, header.face))
        if origin.source_frame_dims is not None:
            height, width = origin.source_frame_dims
            sizes[origin.source_filename] = (int(height), int(width))
    if passed_over:
        logger.warning("%s: %d images without face data were passed over", folder, passed_over)
    if not grouped:
        hint = f"; {problems[0]}" if problems else ""
        raise InputError(
            f"{folder} holds no extracted faces: give the folder that 'extract' wrote, with PNG headers{hint}"
        )
    frames = {key: [face for _, face in sorted(found, key=lambda e: e[0])] for key, found in grouped.items()}
    positions: dict[str, set[int]] = defaultdict(set)
    for key, found in grouped.items():
        positions[_stem(key)].update(number for number, _ in found)
    return FaceIndex(folder, frames, sizes=sizes, problems=problems, folder=folder), dict(positions)


def read_landmarks(path: Path) -> FaceIndex:
    """Landmarks from plain JSON, JSON lines or CSV (docs/formats/landmarks.md).

    Raises:
        InputError: unknown kind of file, or an entry that is not as documented (names it).
    """
    frames = read_plain_landmarks(path)
    # More digits than these number no frame, and Python refuses to read them.
    return FaceIndex(path, frames, bool(frames) and all(re.fullmatch(r"[0-9]{1,18}", key) for key in frames))
