"""Machine-readable marks that a picture was made with a trained model: XMP in images and MP4/MOV, a tag elsewhere.

The property is IPTC's DigitalSourceType. A face swap is a composite: a trained model
replaced part of a real capture.
Content credentials (C2PA) are added on top by `fsdeploy.convert.credentials`.
"""

from __future__ import annotations

import mmap
import os
import re
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID
from xml.sax.saxutils import quoteattr, unescape

COMPOSITE = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
GENERATED = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
IPTC_NAMESPACE = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
XMP_UUID = UUID("BE7ACFCB-97A9-42E8-9C71-999491E3AFAC").bytes
"""Type of the ISO base media `uuid` box that holds XMP (XMP specification, part 3)."""
UNMARKED = frozenset({".ts"})
"""Kinds of videos that hold no tags."""
_GIF_TRAILER = b";"
_PACKET = 4096
"""An XMP packet of ours is shorter, in bytes."""
ISO_SUFFIXES = frozenset({".mp4", ".mov", ".m4v"})

NO_MARK_NOTICE = (
    "not marked: since 2 August 2026 Art. 50 of the EU AI Act asks that synthetic pictures are marked machine-readably "
    "and that deep fakes are disclosed; without the mark that is left to you"
)


@dataclass(frozen=True)
class Mark:
    """What is written into every output."""

    software: str
    """Name and version of the program."""
    source_type: str = COMPOSITE
    """URI of IPTC's vocabulary."""

    def xmp(self) -> bytes:
        """The XMP packet."""
        return (
            '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
            '<x:xmpmeta xmlns:x="adobe:ns:meta/">'
            '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
            f'<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="{IPTC_NAMESPACE}"'
            ' xmlns:xmp="http://ns.adobe.com/xap/1.0/"'
            f" Iptc4xmpExt:DigitalSourceType={quoteattr(self.source_type)}"
            f" xmp:CreatorTool={quoteattr(self.software)}/>"
            "</rdf:RDF></x:xmpmeta>"
            '<?xpacket end="w"?>'
        ).encode()


def append_xmp_box(path: Path, packet: bytes) -> None:
    """Append XMP to a finished MP4 or MOV as a top-level `uuid` box. Players skip it.

    Raises:
        OSError: no room for it; the file is as it was.
    """
    size = path.stat().st_size
    try:
        with path.open("ab") as stream:
            stream.write(struct.pack(">I4s", 24 + len(packet), b"uuid") + XMP_UUID + packet)
    except OSError:
        os.truncate(path, size)
        raise


def read_mark(path: Path) -> Mark | None:
    """The mark of a file, or None. Looks at the file's raw bytes, whatever its format; an unnamed program is "".

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as stream:
        if not os.fstat(stream.fileno()).st_size:
            return None
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            for value in (COMPOSITE, GENERATED):
                # From the end, where a finished MP4 has it: frames of hours lie before.
                place = data.rfind(value.encode())
                if place >= 0:
                    near = data[max(0, place - _PACKET) : place + _PACKET]
                    tool = re.search(rb"CreatorTool=\"([^\"]*)\"", near)
                    return Mark(unescape(tool[1].decode("utf-8", "replace")) if tool else "", value)
    return None


def read_source_type(path: Path) -> str | None:
    """The DigitalSourceType that a file names, or None, as `read_mark`."""
    mark = read_mark(path)
    return None if mark is None else mark.source_type


def mark_png(data: bytes, packet: bytes) -> bytes:
    """A PNG's bytes with an XMP packet in an `iTXt` chunk right after its header.

    Written by hand: OpenCV's metadata writer uses a Latin-1 chunk and copies memory beyond the packet's end.
    """
    body = b"iTXtXML:com.adobe.xmp\0\0\0\0\0" + packet
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    after_header = 8 + 25
    return data[:after_header] + chunk + data[after_header:]


def mark_jpeg(data: bytes, packet: bytes) -> bytes:
    """A JPEG's bytes with an XMP packet in an APP1 segment, after the JFIF segment where there is one."""
    body = b"http://ns.adobe.com/xap/1.0/\0" + packet
    segment = b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body
    start = 2
    if data[2:4] == b"\xff\xe0":
        start = 4 + struct.unpack(">H", data[4:6])[0]
    return data[:start] + segment + data[start:]


def mark_gif(data: bytes, packet: bytes) -> bytes:
    """A GIF's bytes with an XMP packet as an application extension before its trailer (XMP specification, part 3)."""
    return data[:-1] + _gif_extension(packet) + data[-1:] if data.endswith(_GIF_TRAILER) else data


def append_xmp_gif(path: Path, packet: bytes) -> None:
    """Add XMP to a finished GIF, as `mark_gif`, without reading all of it."""
    with path.open("r+b") as stream:
        stream.seek(-1, 2)
        if stream.read(1) != _GIF_TRAILER:
            return
        stream.seek(-1, 2)
        stream.write(_gif_extension(packet) + _GIF_TRAILER)


def _gif_extension(packet: bytes) -> bytes:
    # Readers that know sub-blocks only are led to the end by this ramp wherever the packet's bytes send them.
    return b"\x21\xff\x0bXMP DataXMP" + packet + bytes([1, *range(255, -1, -1), 0])
