"""Video files through PyAV."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fsdeploy.config.option import option
from fsdeploy.convert.frame import OutputInfo, Picture
from fsdeploy.convert.plugin import Writer
from fsdeploy.convert.provenance import UNMARKED
from fsdeploy.convert.video import ROTATABLE, VideoFormat, VideoOutput

_TUNES = ("none", "film", "animation", "grain", "stillimage", "fastdecode", "zerolatency")
_PRESETS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow")
_PROFILES = ("auto", "baseline", "main", "high", "high10", "high422", "high444")


@dataclass(frozen=True)
class VideoOptions:
    """Encoder and quality. The container follows from the output's name."""

    encoder: str = option(
        "auto", "Encoder by FFmpeg's name; auto tries hardware H.264 first, then libx264 (also libx265, libsvtav1)."
    )
    crf: int = option(20, "Quality: lower is better and larger.", minimum=0, maximum=51)
    preset: str = option("faster", "Speed against size (libx264, libx265).", choices=_PRESETS)
    tune: str = option("none", "Kind of material (libx264, libx265).", choices=_TUNES)
    profile: str = option("auto", "H.264 profile.", choices=_PROFILES)
    level: str = option("auto", "H.264 level, for example 4.1.")


class VideoWriter(Writer):
    """A video file with the source's size, timing, colour tags and sound."""

    Options = VideoOptions
    one_size = True
    deep = True

    def keeps_rotation(self, path: Path) -> bool:
        return path.suffix.lower() in ROTATABLE

    def can_mark(self, output: Path) -> bool:
        return output.suffix.lower() not in UNMARKED

    def open(self, info: OutputInfo) -> None:
        chosen = self.options
        named = {"tune": chosen.tune, "profile": chosen.profile, "level": chosen.level}
        extra = {name: value for name, value in named.items() if value not in ("none", "auto")}
        source = info.source
        self._video = VideoOutput(
            info.path,
            VideoFormat(
                width=info.width,
                height=info.height,
                rate=info.rate,
                tags=source.tags,
                time_base=source.time_base if info.keep_timing else None,
                sample_aspect=source.sample_aspect,
                rotation=source.rotation,
                bit_depth=10 if source.bit_depth > 8 and source.is_video else 8,
                encoder=chosen.encoder,
                options=extra,
                crf=chosen.crf,
                preset=chosen.preset,
            ),
            audio_from=info.audio_from,
            audio_to_end=info.audio_from == source.path,
            mark=info.mark,
        )
        self._following = 0

    def write(self, picture: Picture, encoded: Any) -> None:
        self._video.write(picture.image, picture.timing, contiguous=picture.index == self._following)
        self._following = picture.index + 1

    def close(self, complete: bool) -> None:
        self._video.close(complete)

    def notes(self) -> list[str]:
        return self._video.notes()

    @property
    def description(self) -> str:
        return self._video.encoder
