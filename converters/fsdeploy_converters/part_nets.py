"""Joining networks that were saved one by one to the whole model: who feeds whom is not in the files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from fsdeploy_converters.errors import damaged
from fsdeploy_converters.keras_graph import KerasCall, KerasLayer, KerasNet, Ref

_TWO_DECODERS = {"encoder": "encoder", "decoder_A": "decoder_a", "decoder_B": "decoder_b"}
# Each side's decoder is fed with two codes: the first part's, then the second's.
_SHARED_DECODERS = {
    "iae": (
        {
            "encoder": "encoder", "intermediate_A": "inter_a", "intermediate_B": "inter_b", "inter": "inter_both",
            "decoder": "decoder",
        },
        (("inter_a", "inter_both"), ("inter_b", "inter_both")),
    ),
    "liae": (
        {
            "encoder": "encoder_liae", "intermediate_B": "intermediate_b", "intermediate": "intermediate_both",
            "decoder": "decoder_both",
        },
        (("intermediate_both", "intermediate_both"), ("intermediate_b", "intermediate_both")),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Composition:
    """A whole model out of parts."""

    root: KerasNet
    names: Mapping[str, str]
    """Part as in the file names -> name of the nested net."""


@dataclass(frozen=True)
class Wiring:
    """How parts are joined."""

    names: Mapping[str, str]
    """Part -> name of the nested net."""
    codes: tuple[tuple[str, str], ...]
    """For a shared decoder, the two nets whose codes feed it, by side; empty where each side has its own decoder."""


def wiring(parts: Iterable[str], source: str) -> Wiring:
    """The wiring of a model that has these parts.

    Raises:
        CorruptModelError: a part is missing; names the files.
    """
    present = set(parts)
    kind = ""
    if not present & {"decoder_A", "decoder_B"}:
        kind = "iae" if present & {"inter", "intermediate_A"} else "liae" if present - {"encoder"} else ""
    names, codes = (_TWO_DECODERS, ()) if not kind else _SHARED_DECODERS[kind]
    missing = [part for part in names if part not in present]
    if missing:
        wanted = ", ".join(f"*{part}.h5" for part in missing)
        raise damaged(source, f"a model needs all its files, and {wanted} is not beside it")
    return Wiring(names, codes)


def compose(nets: Mapping[str, KerasNet], source: str, name: str) -> Composition:
    """Wire the parts of a model.

    Args:
        nets: Part ("encoder", "decoder_A", ...) -> its network.

    Raises:
        CorruptModelError: a part is missing.
    """
    found = wiring(nets, source)
    names, codes = found.names, found.codes
    encoder = nets["encoder"]
    layers: dict[str, KerasLayer] = {}
    first = encoder.layers[encoder.inputs[0].layer]
    for side in "ab":
        layers[f"face_in_{side}"] = KerasLayer("InputLayer", f"face_in_{side}", first.config, ())
    faces: list[tuple[Ref, ...]] = [(Ref("face_in_a", 0, 0),), (Ref("face_in_b", 0, 0),)]
    _add(layers, names["encoder"], encoder, faces)
    if codes:
        outputs = _shared(layers, nets, names, codes)
    else:
        outputs = []
        for call, part in enumerate(("decoder_A", "decoder_B")):
            _add(layers, names[part], nets[part], [(Ref(names["encoder"], call, 0),)])
            outputs.extend(Ref(names[part], 0, number) for number in range(len(nets[part].outputs)))
    root = KerasNet(name or "original", layers, tuple(ref for call in faces for ref in call), tuple(outputs))
    return Composition(root, {part: names[part] for part in nets if part in names})


def _add(layers: dict[str, KerasLayer], name: str, net: KerasNet, calls: list[tuple[Ref, ...]]) -> None:
    layers[name] = KerasLayer("Model", name, {}, tuple(KerasCall(inputs) for inputs in calls), net)


def _shared(
    layers: dict[str, KerasLayer],
    nets: Mapping[str, KerasNet],
    names: Mapping[str, str],
    codes: tuple[tuple[str, str], ...],
) -> list[Ref]:
    parts = {name: part for part, name in names.items()}
    codes_of: dict[str, list[tuple[Ref, ...]]] = {}
    joined: list[tuple[Ref, ...]] = []
    for side, pair in enumerate(codes):
        refs = []
        for name in pair:
            calls = codes_of.setdefault(name, [])
            calls.append((Ref(names["encoder"], side, 0),))
            refs.append(Ref(name, len(calls) - 1, 0))
        joined.append(tuple(refs))
    for name, calls in codes_of.items():
        _add(layers, name, nets[parts[name]], calls)
    for side, given in enumerate(joined):
        join = f"concatenate_{'ab'[side]}"
        layers[join] = KerasLayer("Concatenate", join, {"axis": -1}, (KerasCall(given),))
    decoder = names["decoder"]
    _add(layers, decoder, nets["decoder"], [(Ref("concatenate_a", 0, 0),), (Ref("concatenate_b", 0, 0),)])
    count = len(nets["decoder"].outputs)
    return [Ref(decoder, side, number) for side in (0, 1) for number in range(count)]
