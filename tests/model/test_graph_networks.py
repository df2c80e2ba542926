"""Networks described as data: running them, cutting one direction, exporting, and refusing damaged descriptions."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch

from fsdeploy.errors import CorruptModelError
from fsdeploy.model.graph.description import Call, GraphDescription, Net, Operation
from fsdeploy.model.graph.network import GraphNetwork, module_name


def chain(shape: tuple[int, ...], *operations: tuple[str, dict]) -> Net:
    """Operations one after the other."""
    parts = {f"part_{n}": Operation(op, attributes) for n, (op, attributes) in enumerate(operations)}
    calls = tuple(Call(name, (n,), (n + 1,)) for n, name in enumerate(parts))
    return Net((shape,), parts, calls, (len(operations),))


def conv(inputs: int, outputs: int, pad: list[int], stride: int = 1) -> tuple[str, dict]:
    return "conv", {"inputs": inputs, "outputs": outputs, "kernel": [3, 3], "stride": [stride] * 2, "pad": pad}


FACE_OUT = [conv(4, 3, [1, 1, 1, 1]), ("activation", {"kind": "sigmoid"})]
WHOLE = {
    "asymmetric padding, batch norm and shuffles": [
        conv(3, 16, [0, 1, 0, 1], 2),
        ("batch_norm", {"channels": 16, "eps": 1e-3}),
        ("leaky_relu", {"slope": 0.1}),
        ("pixel_shuffle", {"factor": 2, "source": [16, 8, 8], "order": "dcr"}),
    ],
    "transposed convolution with the last row dropped": [
        conv(3, 4, [0, 1, 0, 1], 2),
        ("conv_transpose", {"inputs": 4, "outputs": 4, "kernel": [3, 3], "stride": [2, 2], "crop": [0, 0],
                            "size": [16, 16], "source": [8, 8]}),
    ],
    "transposed convolution with the first row dropped": [
        conv(3, 4, [0, 1, 0, 1], 2),
        ("conv_transpose", {"inputs": 4, "outputs": 4, "kernel": [3, 3], "stride": [2, 2], "crop": [1, 1],
                            "size": [16, 16], "source": [8, 8]}),
    ],
    "dense layers between images": [
        ("flatten", {"order": "hwc"}),
        ("linear", {"inputs": 768, "outputs": 8}),
        ("dropout", {"rate": 0.1}),
        ("linear", {"inputs": 8, "outputs": 1024}),
        ("reshape", {"shape": [16, 16, 4], "order": "hwc"}),
    ],
    "norms": [
        conv(3, 4, [1, 1, 1, 1]),
        ("instance_norm", {"channels": 4}),
        ("layer_norm", {"channels": 4, "eps": 1e-3}),
        ("rms_norm", {"channels": 4}),
        ("group_norm", {"channels": 4, "groups": 2}),
        ("fixed_norm", {"channels": 4}),
        ("prelu", {"shape": [4, 16, 16]}),
    ],
    "resizing": [
        conv(3, 4, [1, 1, 1, 1], 2),
        ("resize", {"source": [8, 8], "size": [16, 16], "mode": "half_pixel"}),
        ("pad", {"pad": [1, 2, 1, 2], "mode": "reflect"}),
        ("pool", {"kind": "max", "size": [2, 2], "stride": [1, 1], "pad": [0, 0, 0, 0]}),
        ("crop", {"top": 0, "left": 1, "height": 16, "width": 16}),
    ],
    "the bilinear of old": [
        conv(3, 4, [1, 1, 1, 1], 2),
        ("resize", {"source": [8, 8], "size": [16, 16], "mode": "corner"}),
        ("pool", {"kind": "mean", "size": [3, 3], "stride": [1, 1], "pad": [1, 1, 1, 1]}),
        ("affine", {"scale": [1.0, 2.0, 3.0, 4.0], "offset": -1.0}),
    ],
    "tokens": [
        conv(3, 4, [0, 1, 0, 1], 2),
        ("reshape", {"shape": [64, 4]}),
        ("layer_norm", {"channels": 4, "eps": 1e-5}),
        ("linear", {"inputs": 4, "outputs": 16}),
        ("reshape", {"shape": [16, 16, 4]}),
    ],
}  # fmt: skip


def swap_model(operations: list[tuple[str, dict]]) -> GraphDescription:
    """One shared net from face to face."""
    body = chain((3, 16, 16), *operations, *FACE_OUT)
    calls = (Call("body", (0,), (2,)), Call("body", (1,), (3,)))
    return GraphDescription("test", Net(((3, 16, 16),) * 2, {"body": body}, calls, (2, 3)), ((2,), (3,)))


@pytest.mark.parametrize("kind", WHOLE)
def test_a_graph_gives_the_same_images_in_onnxruntime(kind, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    from fsdeploy.export.graph import trace
    from fsdeploy.export.onnxwriter import write_graph
    from fsdeploy.export.target import face_target
    from fsdeploy.model.inference import Inference
    from fsdeploy.model.info import ModelInfo

    torch.manual_seed(0)
    network = GraphNetwork(swap_model(WHOLE[kind])).eval().requires_grad_(False)
    for tensor in network.state_dict().values():
        tensor.copy_(torch.rand_like(tensor) * 0.5 + 0.1)
    info = ModelInfo("test", 16, 16, (16,), "bgr", "face", 1.0, 0.0, False, 0, "")
    target = face_target(Inference(network, False), info, None)
    graph = trace(target.module, target.examples(), target.inputs, target.outputs, 17)
    write_graph(graph, tmp_path / "graph.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "graph.onnx"), providers=["CPUExecutionProvider"])
    for count in (1, 3):
        face = torch.rand(count, 3, 16, 16)
        (swap,) = session.run(None, {"face": face.numpy()})
        np.testing.assert_allclose(swap, network.swap(face, 1)[0], atol=1e-5)


def test_one_direction_feeds_its_face_to_every_input_and_runs_only_what_it_needs():
    half = chain((3, 4, 4), conv(3, 2, [1, 1, 1, 1]))
    parts = {
        "shared": half,
        "own": half,
        "join": Operation("concat", {"axis": 1}),
        "out": chain((4, 4, 4), conv(4, 3, [1] * 4)),
    }
    calls = (
        Call("shared", (0,), (2,)), Call("shared", (0,), (3,)), Call("join", (2, 3), (4,)), Call("out", (4,), (5,)),
        Call("own", (1,), (6,)), Call("shared", (1,), (7,)), Call("join", (6, 7), (8,)), Call("out", (8,), (9,)),
    )  # fmt: skip
    network = GraphNetwork(GraphDescription("liae", Net(((3, 4, 4),) * 2, parts, calls, (5, 9)), ((5,), (9,)))).eval()
    assert list(network.parts(0)) == ["shared", "join", "out"] and list(network.parts(1)) == [
        "own",
        "shared",
        "join",
        "out",
    ]
    face = torch.rand(2, 3, 4, 4)
    whole = network([face, face])
    for side in (0, 1):
        torch.testing.assert_close(network.swap(face, side), whole[side])


def test_a_description_survives_its_json_form():
    before = swap_model(WHOLE["norms"])
    after = GraphDescription.from_json(json.loads(json.dumps(before.to_json())), "test")
    assert after.to_json() == before.to_json()
    assert list(GraphNetwork(after).state_dict()) == list(GraphNetwork(before).state_dict())


@pytest.mark.parametrize(
    "damage",
    [
        lambda d: d.update(format=99),
        lambda d: d.pop("net"),
        lambda d: d["net"]["calls"].reverse(),
        lambda d: d["net"]["calls"][0].__setitem__(1, [77]),
        lambda d: d["net"]["calls"][0].__setitem__(0, "nobody"),
        lambda d: d["net"]["calls"][0].__setitem__(2, [5]),
        lambda d: d["sides"].__setitem__(0, [99]),
        lambda d: d["sides"].pop(),
        lambda d: d["net"]["inputs"].__setitem__(0, [3, 1 << 20, 1 << 20]),
        lambda d: d["net"]["parts"].update({"a.b": {"op": "activation", "kind": "relu"}}),
        lambda d: d["net"]["parts"]["body"]["net"]["parts"]["part_0"].update(inputs=1e300),
        lambda d: d["net"].update(parts=[1, 2]),
    ],
)
def test_a_damaged_description_is_refused_by_name(damage):
    stored = copy.deepcopy(swap_model(WHOLE["norms"]).to_json())
    damage(stored)
    with pytest.raises(CorruptModelError, match=r"model\.json"):
        GraphDescription.from_json(stored, "model.json")


@pytest.mark.parametrize(
    "operation", [("no_such", {}), ("conv", {"inputs": 3}), ("activation", {"kind": "eval"}), ("pool", {"kind": 3})]
)
def test_an_operation_that_does_not_exist_is_refused_by_name(operation):
    with pytest.raises(CorruptModelError, match="part_0"):
        GraphNetwork(swap_model([operation]))


def test_names_of_layers_become_names_that_modules_may_have():
    taken: list[str] = []
    for name in ("conv/1.a", "conv_1_a", "forward", "training", "0.0_1", ""):
        taken.append(module_name(name, taken))
    assert len(set(taken)) == 6 and all(name.isidentifier() for name in taken)
