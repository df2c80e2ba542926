"""Decode, crop and infer, blend and encode, write: stages in threads, bounded by one count of frames in flight.

A frame takes a permit when it is decoded and gives it back when it is written. Every item in every queue holds one, so
memory is bounded whatever the clip's length, and nothing can wait for a permit that it holds itself.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fsdeploy.convert.align import UpcomingAlignments
from fsdeploy.convert.conversion import Conversion
from fsdeploy.convert.frame import Frame, OutputInfo, Picture, Status
from fsdeploy.convert.ordered import Done, OrderedOutput
from fsdeploy.convert.report import Report
from fsdeploy.convert.sizing import Sizing, quarter_turns, turned
from fsdeploy.convert.swap import Alignment, Blended, CroppedFace, blend_faces, crop_faces
from fsdeploy.errors import FsdeployError
from fsdeploy.faces.records import FaceRecord

logger = logging.getLogger(__name__)

INTERRUPTED = "interrupted"
"""What a report says when its conversion was stopped from outside."""
_IDLE_S = 0.02
"""A batch is closed when no further face came for this long."""


@dataclass
class _Item:
    """A frame on its way; `place` orders what is written."""

    place: int
    frame: Frame
    records: Sequence[FaceRecord] = ()
    alignments: Sequence[Alignment] = ()
    crops: list[CroppedFace] = field(default_factory=list)


@dataclass(frozen=True)
class _End:
    """The source has no more frames, or a stage failed."""

    count: int | None
    """Frames that were sent on their way and are still written; None: the stage they need is gone."""
    error: Exception | None = None


def convert(
    job: Conversion,
    report: Report | None = None,
    on_progress: Callable[[Report], None] | None = None,
    stop: threading.Event | None = None,
) -> Report:
    """Run a conversion to its end.

    Args:
        report: filled in as frames pass; a new one by default.
        on_progress: called when the output is open, and after each written frame.
        stop: when set, no further frame is read; those in flight are written and the output is closed.

    Returns:
        The account of every frame.

    Raises:
        OutputFullError: nothing more fits; what was written is playable and `report` says how far it got.
        CheckFailedError: `on_error` is "stop" and a frame failed.
        Exception: whatever else ended it early; `report.stopped` names it.
    """
    return _Run(job, report or Report(), on_progress, stop or threading.Event()).run()


class _Run:
    """The threads and queues of one conversion."""

    def __init__(
        self, job: Conversion, report: Report, on_progress: Callable[[Report], None] | None, stop: threading.Event
    ) -> None:
        self.job, self.report, self.on_progress, self.stop = job, report, on_progress, stop
        self.alignments = UpcomingAlignments(job.faces)
        self.over = threading.Event()
        """Nobody waits for frames any more."""
        info = job.source.info
        stored = (max(2, round(info.width * job.scale)), max(2, round(info.height * job.scale)))
        quarters = self._turns()
        self.sizing = Sizing((info.width, info.height), stored, job.scale, job.writer.one_size, quarters)
        self.size = stored[::-1] if quarters % 2 else stored
        """Of the output, (width, height)."""
        self.shown = turned(info, quarters)
        self.permits = threading.Semaphore(2 * job.jobs + job.batch + 4)
        self.to_infer: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self.done: queue.SimpleQueue[Done | _End] = queue.SimpleQueue()
        self.pool = ThreadPoolExecutor(job.jobs, thread_name_prefix="blend")
        self.output = OrderedOutput(job, report, self.size)

    def _turns(self) -> int:
        """Quarter turns that bring pictures upright, 0 where the output says by itself how it is shown."""
        job, degrees = self.job, self.job.source.info.rotation
        # Patches and their matrices belong to the pixels as they are stored.
        if not degrees or job.writer.takes == "patches" or job.writer.keeps_rotation(job.output):
            return 0
        quarters = quarter_turns(degrees)
        if quarters is None:
            self.report.notes[f"the source is to be shown turned by {degrees} degrees, the output is not"] += 1
        return quarters or 0

    def run(self) -> Report:
        job, info = self.job, self.shown
        job.writer.open(
            OutputInfo(
                path=job.output, source=info, width=self.size[0], height=self.size[1], rate=job.rate,
                keep_timing=info.is_video, audio_from=job.audio_from, transparent=job.transparent,
                mark=job.mark, resume=job.resume,
                part=job.part_name, patch_size=job.model.face_size, keys=job.source.keys(),
            )
        )  # fmt: skip
        started = time.perf_counter()
        failure: BaseException | None = None
        try:
            if self.on_progress is not None:
                self.on_progress(self.report)
            self._run_stages()
        except BaseException as error:
            failure = error
        self.report.seconds = time.perf_counter() - started
        self.report.damage += getattr(job.source, "damage", [])
        try:
            job.writer.close(failure is None and not self.report.stopped)
        except BaseException as error:
            if failure is None or not isinstance(error, Exception):
                failure = error
            else:  # the first problem is the one to report
                logger.warning("%s", _reason(error))
        self.report.notes.update([*job.writer.notes(), *self.output.gap_notes()])
        if failure is not None:
            self.report.stopped = self.report.stopped or _why(failure)
            raise failure
        self.report.finished = not self.report.stopped
        return self.report

    def _run_stages(self) -> None:
        threads = [
            threading.Thread(target=self._read, name="decode", daemon=True),
            threading.Thread(target=self._infer, name="infer", daemon=True),
        ]
        for thread in threads:
            thread.start()
        try:
            self._write_all()
        finally:
            self.over.set()
            self.to_infer.put(None)
            for thread in threads:
                thread.join(timeout=60)
            self.pool.shutdown(wait=True, cancel_futures=True)

    # reading ----------------------------------------------------------------------------------------------------

    def _read(self) -> None:
        place, error = 0, None
        try:
            frames = iter(self.job.source.frames(*self.job.part))
            while True:
                while not self.permits.acquire(timeout=0.1):
                    if self.over.is_set():
                        return
                if self.over.is_set():
                    break
                if self.stop.is_set():
                    self.report.stopped = INTERRUPTED
                    break
                with self.report.timed("decode"):
                    frame = next(frames, None)
                if frame is None:
                    break
                place += self._route(place, frame)
        except Exception as caught:
            error = caught
        finally:
            self.to_infer.put(None)
            self.done.put(_End(place, error))

    def _route(self, place: int, frame: Frame) -> int:
        """Send a frame on its way; the number of places it takes in the output (0 or 1)."""
        self.report.read += 1
        item = _Item(place, frame)
        if not self._in_ranges(frame):
            if not self.job.keep_unchanged:
                self.report.status[Status.SKIPPED] += 1
                self.report.left_out += 1
                self.permits.release()
                return 0
            self._submit(self._unchanged, item, Status.SKIPPED, "")
        elif frame.image is None:
            self.done.put(Done(place, None, frame, reason=frame.error or "could not be read"))
        else:
            self._with_faces(item)
        return 1

    def _written_before(self, frame: Frame) -> bool:
        job = self.job
        return job.resume and frame.key not in job.redo and job.writer.has(frame.key, *self.size)

    def _with_faces(self, item: _Item) -> None:
        try:
            item.records = self.job.faces.faces(item.frame)
            if self._written_before(item.frame):
                self.done.put(Done(item.place, None, item.frame, written_before=True))
                return
            with self.report.timed("align"):
                item.alignments = self.alignments.of(item.frame)
        except FsdeployError as error:
            self._submit(self._unchanged, item, Status.FAILED, str(error))
            return
        if item.records:
            self.to_infer.put(item)
        else:
            self._submit(self._unchanged, item, Status.UNCHANGED, "")

    def _in_ranges(self, frame: Frame) -> bool:
        if not self.job.ranges or frame.number is None:
            return True
        return any(first <= frame.number <= last for first, last in self.job.ranges)

    # crop and infer -----------------------------------------------------------------------------------------------

    def _infer(self) -> None:
        try:
            self._infer_all()
        except Exception as error:  # without this thread nobody would ever write the frames that wait for it
            self.done.put(_End(None, error))

    def _infer_all(self) -> None:
        waiting: list[_Item] = []
        while True:
            try:
                item = self.to_infer.get(timeout=_IDLE_S) if waiting else self.to_infer.get()
            except queue.Empty:
                self._run_batch(waiting)
                waiting = []
                continue
            if item is None:
                self._run_batch(waiting)
                return
            try:
                assert item.frame.image is not None
                with self.report.timed("crop"):
                    item.crops = crop_faces(item.frame.image, item.records, self.job.model, item.alignments)
            except Exception as error:
                self._submit(self._unchanged, item, Status.FAILED, _reason(error))
                continue
            waiting.append(item)
            if sum(len(entry.crops) for entry in waiting) >= self.job.batch:
                self._run_batch(waiting)
                waiting = []

    def _run_batch(self, items: list[_Item]) -> None:
        """Swap the faces of some frames in one run; where that fails, frame by frame, so that one costs no other."""
        if not items or self.over.is_set():
            return
        try:
            feeds: Any = np.stack([crop.feed for item in items for crop in item.crops])
            with self.report.timed("infer"):
                swapped, masks = self.job.model.swap(feeds)
        except Exception as error:
            if len(items) > 1:
                for item in items:
                    self._run_batch([item])
            else:
                self._submit(self._unchanged, items[0], Status.FAILED, _reason(error))
            return
        start = 0
        for item in items:
            end = start + len(item.crops)
            faces, opacity = swapped[start:end], None if masks is None else masks[start:end]
            if np.isfinite(faces).all() and (opacity is None or np.isfinite(opacity).all()):
                self._submit(self._blend, item, faces, opacity)
            else:
                self._submit(self._unchanged, item, Status.FAILED, "the model gave values that are no numbers")
            start = end

    # blend and encode ---------------------------------------------------------------------------------------------

    def _submit(self, task: Callable[..., Done], item: _Item, *arguments: Any) -> None:
        def work() -> None:
            try:
                done = task(item, *arguments)
            except Exception as error:
                if item.frame.image is not None and task != self._unchanged:
                    try:
                        done = self._unchanged(item, Status.FAILED, _reason(error))
                    except Exception as second:
                        done = Done(item.place, None, item.frame, reason=_reason(second))
                else:
                    done = Done(item.place, None, item.frame, reason=_reason(error))
            self.done.put(done)

        try:
            self.pool.submit(work)
        except RuntimeError:  # shut down while stopping: nobody waits for this frame any more
            self.permits.release()

    def _blend(self, item: _Item, swapped: Any, masks: Any) -> Done:
        frame = item.frame
        assert frame.image is not None
        patches = self.job.writer.takes == "patches"
        with self.report.timed("blend"):
            blended = blend_faces(
                frame.image, item.crops, swapped, masks, self.job.model, self.job.look,
                want_alpha=self.job.transparent, want_patches=patches,
            )  # fmt: skip
        return self._finish(item, blended, Status.SWAPPED, "")

    def _unchanged(self, item: _Item, status: Status, reason: str) -> Done:
        frame = item.frame
        assert frame.image is not None
        alpha = np.zeros(frame.image.shape[:2], np.uint8) if self.job.transparent else None
        return self._finish(item, Blended(frame.image, alpha, (), ()), status, reason)

    def _finish(self, item: _Item, blended: Blended, status: Status, reason: str) -> Done:
        frame = item.frame
        image, alpha = blended.image, blended.alpha if self.job.transparent else frame.alpha
        if self.job.writer.takes == "frames":
            image = self.sizing(image)
            alpha = None if alpha is None else self.sizing(alpha)
        faces = len(item.crops) if status is Status.SWAPPED else 0
        picture = Picture(
            frame.index, frame.key, image, status, alpha, frame.timing, blended.patches, faces, blended.notes
        )
        with self.report.timed("encode"):
            encoded = self.job.writer.encode(picture)
        return Done(item.place, picture, frame, encoded, reason)

    # writing ------------------------------------------------------------------------------------------------------

    def _write_all(self) -> None:
        """Write in order until the source has ended and every frame of it is written."""
        waiting: dict[int, Done] = {}
        following, total, failure = 0, None, None
        while total is None or following < total:
            entry = self.done.get()
            if isinstance(entry, _End):
                if entry.count is None and entry.error is not None:
                    raise entry.error
                total, failure = entry.count, entry.error
                continue
            waiting[entry.place] = entry
            while following in waiting:
                self.output.write(waiting.pop(following))
                following += 1
                self.permits.release()
                if self.on_progress is not None:
                    self.on_progress(self.report)
        if failure is not None:
            raise failure


def _reason(error: BaseException) -> str:
    """One line for the account; surprises keep their type."""
    text = " ".join(str(error).split())
    return text if isinstance(error, FsdeployError) else f"{type(error).__name__}: {text}"


def _why(error: BaseException) -> str:
    """What a report says of an error that ended its conversion; never empty."""
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    return _reason(error) or type(error).__name__
