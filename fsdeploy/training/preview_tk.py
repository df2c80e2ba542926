"""The preview window with zoom and scrolling, drawn by Tk: on its own, or inside another program's window."""

from __future__ import annotations

import logging
import sys
import time
import tkinter as tk
from pathlib import Path
from tkinter import ttk
from types import TracebackType
from typing import Any, Final

from fsdeploy.errors import FsdeployError
from fsdeploy.images import read_image, write_image
from fsdeploy.training import preview_zoom as zoom
from fsdeploy.training.preview_cv import KEY_HINTS, Image, PreviewBase, PreviewBuffer, Triggers

logger = logging.getLogger(__name__)

_REFRESH_MS: Final = 500
_MOVE_SHARE: Final = 25
"""Arrow keys move by the visible range divided by this."""
_FIT: Final = "Fit"


class PreviewTk(PreviewBase):
    """Shows the newest image of the buffer.

    Keys: those of KEYS, + and - and the mouse wheel zoom, arrows and dragging move, i switches between nearest and
    bicubic enlargement, Ctrl+s saves the picture. Closing the window only puts it aside, because the training goes on.

    Args:
        preview_buffer: Where the images come from.
        parent: Widget of another program to sit in; None for a window of its own.
        taskbar: Frame of that program for the zoom controls.
        triggers: Events that keys set. None inside another program, or to just look at a picture.
        save_folder: Where Ctrl+s saves pictures; the current folder by default.

    Raises:
        tkinter.TclError: there is no display.
    """

    def __init__(
        self,
        preview_buffer: PreviewBuffer,
        parent: tk.Misc | None = None,
        taskbar: ttk.Frame | None = None,
        triggers: Triggers | None = None,
        *,
        save_folder: Path | None = None,
    ) -> None:
        super().__init__(preview_buffer, triggers)
        self._save_folder = save_folder or Path()
        self._root: tk.Tk | None = None
        if parent is None:
            self._root = parent = tk.Tk(className="fsdeploy preview")
            self._root.withdraw()
            self._root.protocol("WM_DELETE_WINDOW", self._root.destroy if triggers is None else self._root.iconify)
            self._root.report_callback_exception = _log_failure
        self._master = ttk.Frame(parent)
        self._image: Image | None = None
        self._photo: tk.PhotoImage | None = None
        self._zoom = 100
        self._limits = (100, 100)
        self._smooth = False
        self._draw_due = False
        self._build_canvas()
        self._controls = ttk.Frame(taskbar or self._master)
        self._build_controls()
        self._bind_keys(self._root or self._canvas)
        if self._root is not None:
            self._master.pack(fill="both", expand=True)
        self._master.after(_REFRESH_MS, self._refresh)

    @property
    def master_frame(self) -> ttk.Frame:
        """The frame that holds everything but controls in a foreign taskbar."""
        return self._master

    def pack(self, *args: Any, **kwargs: Any) -> None:
        """Pack the master frame; takes what `tkinter.Frame.pack` takes."""
        self._master.pack(*args, **kwargs)

    def remove_option_controls(self) -> None:
        """Take the zoom controls out of the taskbar."""
        self._controls.pack_forget()

    def run(self) -> None:
        """Run the window until `shutdown` is set. Call it in the thread that made the window."""
        self._display_loop()

    def _display_loop(self) -> None:
        if self._root is not None:
            self._root.mainloop()

    def save(self, location: str | Path) -> None:
        """Save the unscaled picture as `preview_<date>_<time>.png`.

        Args:
            location: The folder.
        """
        if self._image is None:
            return
        path = Path(location) / time.strftime("preview_%Y-%m-%d_%H.%M.%S.png")
        try:
            write_image(path, self._image)
            logger.info("saved %s", path)
        except FsdeployError as error:  # a full disk is no reason to lose the window
            logger.warning("%s", error)

    # Building

    def _build_canvas(self) -> None:
        self._canvas = tk.Canvas(self._master, highlightthickness=0, background="#202020")
        self._bars = {
            "x": ttk.Scrollbar(self._master, orient="horizontal", command=self._scroll_x),
            "y": ttk.Scrollbar(self._master, orient="vertical", command=self._scroll_y),
        }
        self._canvas.configure(xscrollcommand=self._bars["x"].set, yscrollcommand=self._bars["y"].set)
        self._canvas.grid(row=0, column=0, sticky="nsew")
        self._bars["y"].grid(row=0, column=1, sticky="ns")
        self._bars["x"].grid(row=1, column=0, sticky="ew")
        self._master.rowconfigure(0, weight=1)
        self._master.columnconfigure(0, weight=1)
        self._item = self._canvas.create_image(0, 0, anchor="nw")
        self._canvas.bind("<Configure>", lambda event: self._draw_soon())
        self._canvas.bind("<ButtonPress-1>", self._grab)
        self._canvas.bind("<B1-Motion>", self._drag)

    def _build_controls(self) -> None:
        self._choice = tk.StringVar(self._master, f"{self._zoom}%")
        self._enlarge = tk.StringVar(self._master, "nearest")
        self._list = ttk.Combobox(self._controls, textvariable=self._choice, width=6, state="readonly")
        self._list.bind("<<ComboboxSelected>>", self._pick)
        self._slider = ttk.Scale(self._controls, length=160, command=lambda value: self._set_zoom(float(value)))
        how = ttk.Button(self._controls, textvariable=self._enlarge, width=8, command=self._cycle)
        save = ttk.Button(self._controls, text="Save", width=6, command=lambda: self.save(self._save_folder))
        for widget in (self._list, self._slider, how, save):
            widget.configure(takefocus=False)
            widget.pack(side="left", padx=4, pady=2)
        if self._controls.master is self._master:
            self._controls.grid(row=2, column=0, columnspan=2, sticky="ew")
        else:
            self._controls.pack(side="left")

    def _bind_keys(self, target: tk.Misc) -> None:
        for key in ("m", "r", "s"):
            for event in (f"<Key-{key}>", f"<Key-{key.upper()}>"):
                target.bind(event, lambda _, pressed=key: self._press(pressed))  # type: ignore[misc]
        for event in ("<Return>", "<KP_Enter>"):
            target.bind(event, lambda _: self._press("enter"))
        # More specific than <Key-s>, so that it does not save the model as well.
        for event in ("<Control-s>", "<Control-S>"):
            target.bind(event, lambda _: self.save(self._save_folder))
        for event in ("<plus>", "<KP_Add>", "<equal>", "<Button-4>"):
            target.bind(event, lambda _: self._set_zoom(self._zoom + zoom.STEP))
        for event in ("<minus>", "<KP_Subtract>", "<Button-5>"):
            target.bind(event, lambda _: self._set_zoom(self._zoom - zoom.STEP))
        target.bind("<MouseWheel>", lambda e: self._set_zoom(self._zoom + (zoom.STEP if e.delta > 0 else -zoom.STEP)))
        for event, (x, y) in {"<Left>": (-1, 0), "<Right>": (1, 0), "<Up>": (0, -1), "<Down>": (0, 1)}.items():
            target.bind(event, lambda _, dx=x, dy=y: self._move(dx, dy))  # type: ignore[misc]
        target.bind("<Key-i>", lambda _: self._cycle())

    # Images

    def _refresh(self) -> None:
        """Look for a new image; ends the window instead when it is to close."""
        if self.is_shutdown:
            if self._root is not None:
                self._root.destroy()
            return
        if self._buffer.is_updated:
            for name, image in self._buffer.get_images():
                self._take(name, image)
        self._master.after(_REFRESH_MS, self._refresh)

    def _take(self, name: str, image: Image) -> None:
        first = self._image is None
        changed = first or self._image_size(image) != self._image_size(self._image)
        self._image = image
        if changed:
            screen = (self._master.winfo_screenwidth(), self._master.winfo_screenheight())
            self._limits = zoom.limits(self._image_size(image), screen)
            self._list.configure(values=[_FIT, *(f"{choice}%" for choice in zoom.choices(self._limits))])
            self._slider.configure(from_=self._limits[0], to=self._limits[1])
            self._set_zoom(self._zoom)
        if self._root is not None:
            self._root.title(f"{name} | {KEY_HINTS}")
            if first:
                self._open(image)
        self._draw_soon()

    def _open(self, image: Image) -> None:
        """Show the window, as large as the image and no larger than the screen."""
        assert self._root is not None
        self._root.update_idletasks()
        width, height = self._image_size(image)
        bars = (self._bars["y"].winfo_reqwidth(), self._bars["x"].winfo_reqheight() + self._controls.winfo_reqheight())
        width = min(width + bars[0], self._root.winfo_screenwidth())
        height = min(height + bars[1], self._root.winfo_screenheight())
        self._root.geometry(f"{width}x{height}")
        self._root.deiconify()
        self._root.lift()
        self._root.focus_force()

    @staticmethod
    def _image_size(image: Image | None) -> zoom.Size:
        assert image is not None
        return image.shape[1], image.shape[0]

    # Zoom and movement

    def _set_zoom(self, percent: float) -> None:
        """Zoom around the middle of what is seen."""
        new = zoom.clamped(percent, self._limits)
        self._slider.configure(value=new)
        self._choice.set(f"{new}%")
        if new != self._zoom:
            middle = [sum(view()) / 2 for view in (self._canvas.xview, self._canvas.yview)]
            self._zoom = new
            self._layout()
            for position, view, move in zip(
                middle, (self._canvas.xview, self._canvas.yview),
                (self._canvas.xview_moveto, self._canvas.yview_moveto), strict=True,
            ):  # fmt: skip
                first, last = view()
                move(position - (last - first) / 2)
        self._draw_soon()

    def _pick(self, _event: tk.Event[Any]) -> None:
        picked = self._choice.get()
        if picked == _FIT and self._image is not None:
            canvas = (self._canvas.winfo_width(), self._canvas.winfo_height())
            self._set_zoom(zoom.fitting(self._image_size(self._image), canvas, self._limits))
        elif picked != _FIT:
            self._set_zoom(float(picked.rstrip("%")))
        self._canvas.focus_set()

    def _cycle(self) -> None:
        self._smooth = not self._smooth
        self._enlarge.set("bicubic" if self._smooth else "nearest")
        self._draw_soon()

    def _move(self, x: int, y: int) -> None:
        for steps, view, move in (
            (x, self._canvas.xview, self._canvas.xview_moveto),
            (y, self._canvas.yview, self._canvas.yview_moveto),
        ):
            first, last = view()
            if steps:
                move(first + steps * (last - first) / _MOVE_SHARE)
        self._draw_soon()

    def _scroll_x(self, *args: Any) -> None:
        self._canvas.xview(*args)
        self._draw_soon()

    def _scroll_y(self, *args: Any) -> None:
        self._canvas.yview(*args)
        self._draw_soon()

    def _grab(self, event: tk.Event[Any]) -> None:
        self._canvas.focus_set()
        self._canvas.scan_mark(event.x, event.y)

    def _drag(self, event: tk.Event[Any]) -> None:
        self._canvas.scan_dragto(event.x, event.y, gain=1)
        self._draw_soon()

    # Drawing

    def _draw_soon(self) -> None:
        """Draw once the window is idle, however many reasons came together."""
        if not self._draw_due:
            self._draw_due = True
            self._master.after_idle(self._draw)

    def _layout(self) -> tuple[int, int, zoom.Size]:
        """Set the range of the scroll bars. Returns where the image starts on the canvas, and its zoomed size."""
        whole = zoom.scaled_size(self._image_size(self._image), self._zoom) if self._image is not None else (1, 1)
        canvas = (self._canvas.winfo_width(), self._canvas.winfo_height())
        region = max(whole[0], canvas[0]), max(whole[1], canvas[1])
        self._canvas.configure(scrollregion=(0, 0, *region))
        return (region[0] - whole[0]) // 2, (region[1] - whole[1]) // 2, whole

    def _draw(self) -> None:
        """Draw the part of the image that the canvas shows."""
        self._draw_due = False
        if self._image is None:
            return
        start_x, start_y, whole = self._layout()
        left = max(0, int(self._canvas.canvasx(0)) - start_x)
        top = max(0, int(self._canvas.canvasy(0)) - start_y)
        width = min(whole[0] - left, self._canvas.winfo_width())
        height = min(whole[1] - top, self._canvas.winfo_height())
        if width < 1 or height < 1:
            return
        part = zoom.visible_part(self._image, self._zoom, left, top, (width, height), self._smooth)
        pixels = f"P6 {width} {height} 255 ".encode() + part[..., ::-1].tobytes()
        self._photo = tk.PhotoImage(master=self._canvas, data=pixels, format="PPM")
        self._canvas.itemconfigure(self._item, image=self._photo)
        self._canvas.coords(self._item, left + start_x, top + start_y)


def _log_failure(kind: type[BaseException], value: BaseException, trace: TracebackType | None) -> None:
    """What Tk calls when a callback fails: the window stays."""
    logger.warning("preview window: %s: %s", kind.__name__, value)


def main() -> None:
    """Show the image file that is the last argument: `python -m fsdeploy.training.preview_tk FILE`."""
    if len(sys.argv) < 2:
        sys.exit("Error: give an image file to show")
    path = Path(sys.argv[-1])
    try:
        image = read_image(path)
        buffer = PreviewBuffer()
        window = PreviewTk(buffer)
    except (FsdeployError, tk.TclError) as error:
        sys.exit(f"Error: {error}")
    buffer.add_image(path.name, image)
    window.run()


if __name__ == "__main__":
    main()
