"""What preview windows share, and the plain one that OpenCV draws where there is no Tk."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from threading import Event, Lock
from typing import Final, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

logger = logging.getLogger(__name__)

TriggerName = Literal["toggle_mask", "refresh", "save", "quit", "shutdown"]
Triggers = Mapping[TriggerName, Event]
Image = NDArray[np.uint8]

KEYS: Final[dict[str, TriggerName]] = {"m": "toggle_mask", "r": "refresh", "s": "save", "enter": "quit"}
"""Key -> what it asks the training for."""
KEY_HINTS: Final = "m: mask, r: refresh, s: save, Enter: save and quit"

_POLL_S: Final = 1.0


def new_triggers() -> dict[TriggerName, Event]:
    """One event, not set, for everything that a window can ask for, and for closing it."""
    return {name: Event() for name in ("toggle_mask", "refresh", "save", "quit", "shutdown")}


class PreviewBuffer:
    """The images to show, by name. Any thread may add and read."""

    def __init__(self) -> None:
        self._images: dict[str, Image] = {}
        self._lock = Lock()
        self._updated = Event()
        self._version = 0

    @property
    def is_updated(self) -> bool:
        """True when images were added since they were last read to the end."""
        return self._updated.is_set()

    def wait(self, timeout: float) -> bool:
        """Wait for an update for at most `timeout` seconds; True if there is one."""
        return self._updated.wait(timeout)

    def add_image(self, name: str, image: Image) -> None:
        """Store a copy of a BGR uint8 (H, W, 3) image, in place of an earlier one of that name."""
        copy = np.array(image, np.uint8)
        with self._lock:
            self._images[name] = copy
            self._version += 1
            self._updated.set()

    def get_images(self) -> Iterator[tuple[str, Image]]:
        """Yield (name, image) of all images. At the end the update counts as read, unless there is a newer one."""
        with self._lock:
            images, version = list(self._images.items()), self._version
        yield from images
        with self._lock:
            if version == self._version:
                self._updated.clear()


class PreviewBase(ABC):
    """A preview window. Made first, then `run` in the thread that may own windows: on macOS the main one.

    Args:
        preview_buffer: Where the images come from.
        triggers: Events that keys set, and `shutdown`, which ends the window. None inside another program.
    """

    def __init__(self, preview_buffer: PreviewBuffer, triggers: Triggers | None = None) -> None:
        self._buffer = preview_buffer
        self._triggers = triggers

    @property
    def is_shutdown(self) -> bool:
        """True once the window is to close."""
        return self._triggers is not None and self._triggers["shutdown"].is_set()

    def run(self) -> None:
        """Wait for the first image, then show images until `shutdown` is set."""
        while not self._buffer.wait(_POLL_S):
            if self.is_shutdown:
                return
        self._display_loop()

    def _press(self, key: str) -> None:
        """Set the trigger of a key; keys without one do nothing."""
        name = KEYS.get(key.lower())
        if name is not None and self._triggers is not None:
            logger.debug("preview: %s", name)
            self._triggers[name].set()

    @abstractmethod
    def _display_loop(self) -> None:
        """Show images until `is_shutdown`."""


class PreviewCV(PreviewBase):
    """One plain window per image. A window that is closed comes back with its image."""

    def __init__(self, preview_buffer: PreviewBuffer, triggers: Triggers) -> None:
        super().__init__(preview_buffer, triggers)
        self._shown: set[str] = set()

    def _display_loop(self) -> None:
        try:
            while not self.is_shutdown:
                if self._buffer.is_updated or self._any_closed():
                    self._show()
                code = cv2.waitKey(int(_POLL_S * 1000)) & 0xFF
                self._press("enter" if code in (10, 13) else chr(code))
        finally:
            cv2.destroyAllWindows()

    def _show(self) -> None:
        names = set()
        for name, image in self._buffer.get_images():
            title = f"{name} | {KEY_HINTS}"
            cv2.imshow(title, image)
            names.add(title)
        for title in self._shown - names:
            cv2.destroyWindow(title)
        self._shown = names

    def _any_closed(self) -> bool:
        return any(cv2.getWindowProperty(title, cv2.WND_PROP_VISIBLE) < 1 for title in self._shown)
