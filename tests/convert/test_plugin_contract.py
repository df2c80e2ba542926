"""Plugins of strangers that do not return what their base class says are refused before the first frame, by name."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from drawn import colour_model, spec_frame, spec_landmarks, write_landmarks

from fsdeploy.convert import plugin
from fsdeploy.convert.settings import FALLBACK_MASKS, Choice, build_look
from fsdeploy.convert.swap import swap_frame, try_look
from fsdeploy.errors import PluginError
from fsdeploy.faces.records import FaceRecord
from fsdeploy.runtime import Swapper

FACE = spec_landmarks((32, 30), 22)
CLASS = """
import numpy as np
from fsdeploy.convert.plugin import {base}

class Odd({base}):
    '''Odd.'''
    def __call__(self, {arguments}):
        return {returned}
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def make(kind: str, module: str, base: str, arguments: str, returned: str) -> None:
        folder = tmp_path / "site"
        info = folder / f"{module}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[fsdeploy.convert.{kind}]\nodd = {module}:Odd\n")
        (folder / f"{module}.py").write_text(CLASS.format(base=base, arguments=arguments, returned=returned))
        monkeypatch.syspath_prepend(str(folder))

    return make


CASES = {
    "odd_c1": ("color", "ColorPlugin", "target, swapped, mask", "swapped[..., :1]", "(32, 32, 3), got (32, 32, 1)"),
    "odd_c2": ("color", "ColorPlugin", "target, swapped, mask", "None", "(32, 32, 3), got NoneType"),
    "odd_c3": ("color", "ColorPlugin", "target, swapped, mask", "(swapped * 255).astype(np.uint8)", "got uint8"),
    "odd_c4": ("color", "ColorPlugin", "target, swapped", "swapped", "failed (TypeError"),
    "odd_m1": ("mask", "MaskSource", "face", "np.ones((5, 5), np.float32)", "(32, 32), got (5, 5)"),
    "odd_m2": ("mask", "MaskSource", "face", "face.nothing", "failed (AttributeError"),
    "odd_e1": ("mask", "MaskEdge", "mask, drawn", "mask", "two arrays, got ndarray"),
    "odd_e2": ("mask", "MaskEdge", "mask, drawn", "(mask, mask[1:])", "(32, 32), got (31, 32)"),
}


@pytest.mark.parametrize("module", list(CASES))
def test_a_plugin_that_breaks_its_contract_is_refused_by_name_and_nothing_is_written(
    install, tmp_path, dimmer, fsdeploy, module: str
) -> None:
    kind, base, arguments, returned, problem = CASES[module]
    install(kind, module, base, arguments, returned)
    (tmp_path / "in").mkdir()
    cv2.imwrite(str(tmp_path / "in" / "a.png"), np.full((60, 64, 3), 180, np.uint8))
    faces = write_landmarks(tmp_path / "l.json", {"a.png": [FACE]})
    flag = {"ColorPlugin": "--color", "MaskSource": "--mask", "MaskEdge": "--edge"}[base]
    options = ("-m", dimmer, "-i", tmp_path / "in", "-l", faces, "-o", tmp_path / "o", flag, "odd")
    code, _, err = fsdeploy("convert", *options)
    assert code == 2 and f"Odd ({module})" in err and problem in err and len(err.splitlines()) == 1
    assert not (tmp_path / "o").exists()


def test_every_installed_plugin_keeps_its_contract(tmp_path, dimmer) -> None:
    model = Swapper(dimmer)
    masked = Swapper(colour_model(tmp_path / "masked.onnx", size=32, output=64, mask=True))
    for color in ["none", *plugin.names("color", plugin.ColorPlugin)]:
        try_look(build_look(Choice(color=color)), model)
    for mask in ["bisenet-fp_face", *FALLBACK_MASKS, *plugin.names("mask", plugin.MaskSource)]:
        try_look(build_look(Choice(mask=mask)), masked)
    for edge in plugin.names("mask", plugin.MaskEdge):
        try_look(build_look(Choice(edge=edge, mask="none")), model)
    for sharpen in ("box", "gaussian", "unsharp-mask"):
        try_look(build_look(Choice(sharpen=sharpen)), masked)


def test_the_library_refuses_it_at_the_first_face(install, dimmer) -> None:
    install("color", "odd_lib", "ColorPlugin", "target, swapped, mask", "swapped[:-1]")
    record = FaceRecord(0, 0, 5, 5, spec_landmarks(), {}, {}, None, {})
    with pytest.raises(PluginError, match=r"Odd \(odd_lib\) must return an array of shape \(32, 32, 3\)"):
        swap_frame(spec_frame(), [record], Swapper(dimmer), build_look(Choice(color="odd")))
