"""The rules C1 to C20 of docs/formats/dfm.md, one function each: None = passed, else what was expected and found.

A function may raise `Doubt` for a cost that breaks nothing, and `Unknown` when it cannot judge.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from fsdeploy.errors import FsdeployError
from fsdeploy.export.subject import Finding, Subject, edges, manifest_parity

_FLOAT, _UINT8 = onnx.TensorProto.FLOAT, onnx.TensorProto.UINT8
_INPUTS = ("in_face:0", "morph_value:0")
_OUTPUTS = ("out_face_mask:0", "out_celeb_face:0", "out_celeb_face_mask:0")
_LARGEST = 2**31


class Doubt(Exception):  # noqa: N818  a finding, not an error
    """Works, at a cost."""


class Unknown(Exception):  # noqa: N818  a finding, not an error
    """Cannot be judged."""


@dataclass(frozen=True)
class Rule:
    """One row of the checklist."""

    id: str
    title: str
    judge: Callable[[Subject], str | None]
    dfm_only: bool = False
    needs_session: bool = False
    needs: tuple[str, ...] = ()
    """Rules without which this one would only fail for their reason."""

    def apply(self, subject: Subject, failed: Collection[str] = ()) -> Finding:
        """Judge a file of which the rules `failed` failed; whatever goes wrong while judging is itself a finding."""
        broken = [rule for rule in self.needs if rule in failed]
        if broken:
            return Finding(self.id, self.title, "skip", f"it needs {', '.join(broken)}")
        if self.needs_session and subject.session is None:
            return Finding(self.id, self.title, "skip", f"the file does not load: {subject.load_error}")
        try:
            problem = self.judge(subject)
        except Doubt as doubt:
            return Finding(self.id, self.title, "warn", str(doubt))
        except Unknown as unknown:
            return Finding(self.id, self.title, "skip", str(unknown))
        except FsdeployError as error:
            return Finding(self.id, self.title, "fail", str(error))
        except Exception as error:
            first = (str(error).splitlines() or [type(error).__name__])[0]
            return Finding(self.id, self.title, "fail", f"it fails when run: {first}")
        return Finding(self.id, self.title, "fail" if problem else "pass", problem or "")


def one_file(subject: Subject) -> str | None:
    if subject.outline.external:
        return f"expected all weights inside, found them in {', '.join(subject.outline.external)}"
    if subject.path.stat().st_size >= _LARGEST:
        return f"expected less than 2 GB, found {subject.path.stat().st_size / 2**30:.1f}"
    if "deepfacelive" in subject.apps and subject.path.suffix != ".dfm":
        return f"expected the extension .dfm, found '{subject.path.suffix}': DeepFaceLive lists nothing else"
    if "visomaster" in subject.apps and subject.path.suffix not in (".dfm", ".onnx"):
        return f"expected the extension .dfm or .onnx, found '{subject.path.suffix}'"
    leftovers = sorted(entry.name for entry in subject.path.parent.glob(f"{subject.path.name}*.data"))
    if leftovers:
        return f"expected no side files, found {', '.join(leftovers)}"
    if subject.path.suffix not in (".dfm", ".onnx"):
        raise Doubt(f"the extension is '{subject.path.suffix}': programs look for .onnx or .dfm")
    return None


def well_formed(subject: Subject) -> str | None:
    try:
        onnx.checker.check_model(subject.model, full_check=True)
    except Exception as error:
        first = next((line for line in str(error).splitlines() if line.strip()), "")
        return f"onnx.checker: {first}"
    domains = {node.domain for node in subject.model.graph.node} - {"", "ai.onnx"}
    if domains or subject.model.functions:
        return f"expected standard operators only, found {', '.join(sorted(domains)) or 'local functions'}"
    return f"it does not load: {subject.load_error}" if subject.session is None else None


def old_enough(subject: Subject) -> str | None:
    opset = subject.outline.opsets.get("", subject.outline.opsets.get("ai.onnx", 0))
    if subject.outline.ir_version > 9:
        return f"expected IR 9 or older, found {subject.outline.ir_version}"
    if opset > 18:
        return f"expected opset 18 or older, found {opset}"
    if opset > 17:
        raise Doubt(f"opset {opset} loads on the CPU only in old runtimes: 17 is safe")
    return None


def input_names(subject: Subject) -> str | None:
    names = [entry.name for entry in subject.inputs]
    weights = {entry.name for entry in subject.model.graph.initializer} & set(names)
    if weights:
        return f"expected weights not to be inputs, found {', '.join(sorted(weights))}"
    if names[:1] != ["in_face:0"] or names[1:] not in ([], ["morph_value:0"]):
        return f"expected in_face:0 and at most morph_value:0, found {', '.join(names)}"
    return None


def output_names(subject: Subject) -> str | None:
    names = tuple(entry.name for entry in subject.outputs)
    if len(names) != 3:
        return f"expected three outputs (mask, picture, mask), found {len(names)}"
    channels = [edges(entry)[-1:] for entry in subject.outputs]
    if channels[1] != (3,) and (3,) in channels:
        return f"expected the order mask, picture, mask, found {', '.join(names)}"
    if names != _OUTPUTS:
        raise Doubt(f"names differ from {', '.join(_OUTPUTS)}: some readers look them up")
    return None


def border_types(subject: Subject) -> str | None:
    allowed = {_FLOAT} if subject.is_dfm else {_FLOAT, _UINT8}
    for entry in (*subject.inputs, *subject.outputs):
        kind = entry.type.tensor_type.elem_type
        if kind not in allowed:
            return f"expected float32 borders, found {onnx.TensorProto.DataType.Name(kind)} for {entry.name}"
    return None


def input_shape(subject: Subject) -> str | None:
    if not subject.is_dfm:
        return _numeric_sizes(subject)
    found = edges(subject.inputs[0]) if subject.inputs else ()
    square = len(found) == 4 and isinstance(found[1], int) and found[1] > 0 and found[1] == found[2] and found[3] == 3
    batch = len(found) == 4 and (found[0] == 1 or isinstance(found[0], str))
    return None if square and batch else f"expected [batch or 1, R, R, 3] with numeric R, found {list(found)}"


def _numeric_sizes(subject: Subject) -> str | None:
    if subject.takes_frames:
        return None
    for entry in (*subject.inputs, *subject.outputs):
        if not all(isinstance(edge, int) for edge in edges(entry)[1:]):
            return f"expected numbers behind the batch of {entry.name}, found {list(edges(entry))}"
    return None


def output_shapes(subject: Subject) -> str | None:
    size = edges(subject.inputs[0])[1] if subject.inputs and len(edges(subject.inputs[0])) == 4 else "R"
    declared = [edges(entry) for entry in subject.outputs]
    loaded = [tuple(entry.shape) for entry in subject.session.get_outputs()]
    for where, shapes in (("the file", declared), ("the session", loaded)):
        for shape, channels in zip(shapes, (1, 3, 1), strict=False):
            if len(shape) != 4 or shape[1:] != (size, size, channels) or not (shape[0] == 1 or _free(shape[0])):
                return f"expected [batch or 1, {size}, {size}, {channels}] in {where}, found {list(shape)}"
    return None


def _free(edge: object) -> bool:
    return edge is None or isinstance(edge, str)


def _pair(subject: Subject) -> NDArray[np.float32]:
    return subject.pictures(2)


def batches(subject: Subject) -> str | None:
    _needs_faces(subject)
    two = _pair(subject)
    first = subject.run(two[:1])
    if any(len(output) != 1 for output in first):
        return "expected one result for one face"
    if isinstance(edges(subject.inputs[0])[0], int):
        return None
    both = subject.run(two)
    if any(len(output) != 2 for output in both):
        return f"expected two results for two faces, found {[len(output) for output in both]}"
    worst = max(_difference(one, many[:1]) for one, many in zip(first, both, strict=True))
    return None if worst < 1e-4 else f"expected face 0 to be the same beside another, found a difference of {worst:.2g}"


def steady(subject: Subject) -> str | None:
    _needs_faces(subject)
    face = subject.pictures(1)
    one, two = subject.run(face), subject.run(face)
    if not all(np.isfinite(output).all() for output in one):
        return "expected finite values, found NaN or infinity"
    same = all(np.array_equal(first, second) for first, second in zip(one, two, strict=True))
    return None if same else "expected two runs to be equal, found a difference"


def in_range(subject: Subject) -> str | None:
    _needs_faces(subject)
    for output in subject.run(_pair(subject)[: _count(subject)]):
        top = 255 if output.dtype == np.uint8 else 1
        if output.min() < 0 or output.max() > top:
            raise Doubt(f"values reach {output.min():.3g}..{output.max():.3g}, expected 0..{top}")
    return None


def blue_first(subject: Subject) -> str | None:
    face = subject.pictures(1)
    picture, reversed_ = subject.run(face)[1], subject.run(np.ascontiguousarray(face[..., ::-1]))[1]
    equal = _difference(picture, reversed_[..., ::-1]) < 1e-4 and _difference(picture, face) > 1e-3
    if equal:
        raise Doubt("a picture with red and blue exchanged gives the same result: the file ignores colour")
    return None


def lively(subject: Subject) -> str | None:
    _needs_faces(subject)
    two = _pair(subject)
    position = 1 if subject.is_dfm else 0
    one, other = subject.run(two[:1])[position], subject.run(two[1:])[position]
    middle = np.asarray(one, np.float64)[0]
    if middle.std() < 1e-3:
        raise Doubt("the picture is flat")
    if _difference(one, other) < 1e-3:
        raise Doubt("the picture does not depend on the input")
    return None


def masks(subject: Subject) -> str | None:
    outputs = subject.run(subject.pictures(1))
    first, last = outputs[0][0, ..., 0], outputs[2][0, ..., 0]
    if min(first.max(), last.max()) <= 0.5:
        return f"expected masks above 0.5 somewhere, found {first.max():.2f} and {last.max():.2f}: nothing is pasted"
    for mask in (first, last):
        border = max(mask[0].max(), mask[-1].max(), mask[:, 0].max(), mask[:, -1].max())
        cover = float((mask > 0.5).mean())
        if border > 0.05:
            raise Doubt(f"a mask reaches {border:.2f} at the border: the crop's edge will show")
        if not 0.1 <= cover <= 0.9:
            raise Doubt(f"a mask covers {cover:.0%} of the crop, expected 10 to 90 %")
    middle = slice(2 * len(first) // 5, 3 * len(first) // 5)
    if (first * last)[middle, middle].max() <= 0.5:
        raise Doubt("the product of both masks stays below 0.5 on the face")
    return None


def good_size(subject: Subject) -> str | None:
    edge = subject.edge
    if not 128 <= edge <= 512 or edge % 16:
        raise Doubt(f"R = {edge}: expected 128 to 512 (224 is good) and a multiple of 16")
    return None


def morph(subject: Subject) -> str | None:
    if len(subject.inputs) < 2:
        return None
    if edges(subject.inputs[1]) != (1,):
        raise Doubt(f"morph_value:0 is {list(edges(subject.inputs[1]))}, expected [1]")
    entry, second = subject.session.get_inputs()[:2]
    face = subject.pictures(1)
    low, half, high = (
        subject.session.run(None, {entry.name: face, second.name: np.array([value], np.float32)})[1]
        for value in (0.0, 0.5, 1.0)
    )
    if _difference(low, high) < 1e-3:
        raise Doubt("morph_value:0 has no effect")
    if _difference(half, (low + high) / 2) < 1e-3:
        raise Doubt("morph_value:0 is a plain cross-fade: users see a double face until they move the slider")
    return None


def proven(subject: Subject) -> str | None:
    found = manifest_parity(subject.path)
    if found is None:
        raise Unknown("no manifest beside the file: its exporter's comparison is not on record")
    difference, samples = found
    exact = subject.metadata is not None and subject.metadata.extra.get("precision", "fp32") == "fp32"
    limit = 1.1 / 255 if subject.metadata is not None and subject.metadata.extra.get("io") == "uint8" else 1e-4
    if exact and difference > limit:
        return f"expected a largest difference of {limit:.2g} from the model, found {difference:.2g}"
    if samples < 3:
        return f"expected at least 3 compared inputs, found {samples}"
    return None


def loads(subject: Subject) -> str | None:
    import onnxruntime

    problem = old_enough(subject)
    if subject.session is None or problem:
        raise Doubt(problem or subject.load_error)
    if tuple(int(part) for part in onnxruntime.__version__.split(".")[:2]) < (1, 15):
        raise Unknown(f"onnxruntime {onnxruntime.__version__} is older than the oldest promised")
    return None


def described(subject: Subject) -> str | None:
    if subject.metadata is None:
        raise Doubt("no fsdeploy metadata: nobody can tell crop, colour order and provenance")
    return None


def plain_name(subject: Subject) -> str | None:
    if not re.fullmatch(r"(?!__)[A-Za-z0-9_][A-Za-z0-9_-]*", subject.path.stem):
        raise Doubt(f"the name '{subject.path.stem}' may be hidden or misread: use letters, digits, _ and -")
    return None


def _needs_faces(subject: Subject) -> None:
    if subject.takes_frames:
        raise Unknown("the file takes whole frames; its exporter compared it with the numpy paste")


def _count(subject: Subject) -> int:
    first = edges(subject.inputs[0])[0]
    return min(first, 2) if isinstance(first, int) else 2


def _difference(one: NDArray[np.generic], two: NDArray[np.generic]) -> float:
    if one.shape != two.shape:
        return float("inf")
    return float(np.abs(one.astype(np.float64) - two.astype(np.float64)).max())


_BORDERS = ("C6", "C7")
"""What must hold before a file can be run."""
_PICTURES = ("C5", *_BORDERS)
"""What must hold before the outputs of a dfm file can be told apart; plain files are not judged by C5."""

RULES: tuple[Rule, ...] = (
    Rule("C1", "one file, no side files, below 2 GB, right extension", one_file),
    Rule("C2", "passes onnx.checker, standard operators only, loads", well_formed),
    Rule("C3", "IR 9 and opset 18 at most", old_enough),
    Rule("C4", "input names", input_names, dfm_only=True),
    Rule("C5", "three outputs: mask, picture, mask", output_names, dfm_only=True),
    Rule("C6", "types of the borders", border_types),
    Rule("C7", "input shape, numeric sizes", input_shape),
    Rule("C8", "output shapes", output_shapes, dfm_only=True, needs_session=True, needs=("C5", "C7")),
    Rule("C9", "one face, and two where the batch is free", batches, needs_session=True, needs=_BORDERS),
    Rule("C10", "finite and the same every time", steady, needs_session=True, needs=_BORDERS),
    Rule("C11", "values in range", in_range, needs_session=True, needs=_BORDERS),
    Rule("C12", "colour order", blue_first, dfm_only=True, needs_session=True, needs=_PICTURES),
    Rule("C13", "picture depends on the input", lively, needs_session=True, needs=_PICTURES),
    Rule("C14", "masks", masks, dfm_only=True, needs_session=True, needs=_PICTURES),
    Rule("C15", "size of the picture", good_size, dfm_only=True, needs=("C7",)),
    Rule("C16", "morph input", morph, dfm_only=True, needs_session=True, needs=_PICTURES),
    Rule("C17", "equal to the model", proven),
    Rule("C18", "loads in old and new runtimes", loads),
    Rule("C19", "metadata", described),
    Rule("C20", "file name", plain_name),
)
