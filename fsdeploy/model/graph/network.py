"""The torch module of a graph description: `GraphNet` runs one net, `GraphNetwork` is the swap model."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from fsdeploy.errors import CorruptModelError
from fsdeploy.model.graph import layers, operations
from fsdeploy.model.graph.description import Call, GraphDescription, Net, Operation
from fsdeploy.model.network import SwapNetwork

OPERATIONS: dict[str, Callable[..., nn.Module]] = {
    "conv": layers.Conv2d,
    "conv_transpose": layers.ConvTranspose2d,
    "linear": layers.Linear,
    "batch_norm": layers.BatchNorm,
    "instance_norm": layers.InstanceNorm,
    "group_norm": layers.GroupNorm,
    "layer_norm": layers.LayerNorm,
    "rms_norm": layers.RMSNorm,
    "fixed_norm": layers.FixedNorm,
    "prelu": layers.PReLU,
    "channel_scale": layers.ChannelScale,
    "table": layers.Table,
    "attention": layers.Attention,
    "activation": operations.Activation,
    "leaky_relu": operations.LeakyReLU,
    "swish": operations.Swish,
    "affine": operations.Affine,
    "pad": operations.Pad,
    "crop": operations.Crop,
    "pool": operations.Pool,
    "global_pool": operations.GlobalPool,
    "resize": operations.Resize,
    "pixel_shuffle": operations.PixelShuffle,
    "flatten": operations.Flatten,
    "reshape": operations.Reshape,
    "join": operations.Join,
    "concat": operations.Concat,
    "dot": operations.Dot,
    "select": operations.Select,
    "adaptive_norm": operations.Standardise,
    "unit_length": operations.UnitLength,
    "dropout": operations.Dropout,
    "noise": operations.Noise,
}
"""Operation name of a description -> its module. Attributes are the constructor's parameters."""


def build_part(name: str, part: Operation | Net) -> nn.Module:
    """The module of one part.

    Raises:
        CorruptModelError: unknown operation or wrong attributes.
    """
    if isinstance(part, Net):
        return GraphNet(part)
    try:
        return OPERATIONS[part.op](**part.attributes)
    except (KeyError, TypeError, ValueError, IndexError, ZeroDivisionError, RuntimeError) as error:
        raise CorruptModelError(f"part '{name}' cannot be built as '{part.op}': {error}") from error


def module_name(name: str, taken: Iterable[str]) -> str:
    """A name that a torch module may have as a child, close to `name` and not among `taken`."""
    clean = "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in name)[:80]
    if not clean or clean[0].isdigit() or hasattr(nn.Module, clean) or clean in _RESERVED:
        clean = "part_" + clean
    used, unique, count = set(taken), clean, 1
    while unique in used:
        unique, count = f"{clean}_{count}", count + 1
    return unique


_RESERVED = frozenset({"training", "calls", "outputs", "description"})


def run(module: nn.Module, calls: tuple[Call, ...], values: dict[int, Tensor], wanted: tuple[int, ...]) -> list[Tensor]:
    """Run `calls` with the children of `module`; `values` holds the inputs. Values are dropped after their last use."""
    last = {value: position for position, call in enumerate(calls) for value in call.inputs}
    kept = set(wanted)
    for position, call in enumerate(calls):
        result = getattr(module, call.part)(*(values[value] for value in call.inputs))
        results = result if isinstance(result, tuple) else (result,)
        values.update(zip(call.outputs, results, strict=True))
        for value in set(call.inputs):
            if last[value] == position and value not in kept:
                del values[value]
    return [values[value] for value in wanted]


def needed(calls: tuple[Call, ...], wanted: tuple[int, ...]) -> tuple[Call, ...]:
    """The calls that `wanted` depends on."""
    alive, kept = set(wanted), []
    for call in reversed(calls):
        if alive & set(call.outputs):
            alive.update(call.inputs)
            kept.append(call)
    return tuple(reversed(kept))


def merge_equal(calls: tuple[Call, ...], wanted: tuple[int, ...]) -> tuple[tuple[Call, ...], tuple[int, ...]]:
    """Drop calls that repeat an earlier one with the same inputs, as the swap path of a model with one shared branch
    does."""
    stands_for: dict[int, int] = {}
    seen: dict[tuple[str, tuple[int, ...]], Call] = {}
    kept = []
    for call in calls:
        inputs = tuple(stands_for.get(value, value) for value in call.inputs)
        first = seen.get((call.part, inputs))
        if first is not None:
            stands_for.update(zip(call.outputs, first.outputs, strict=True))
            continue
        seen[(call.part, inputs)] = changed = Call(call.part, inputs, call.outputs)
        kept.append(changed)
    return tuple(kept), tuple(stands_for.get(value, value) for value in wanted)


class GraphNet(nn.Module):
    """One net: takes its inputs, gives its outputs as one tensor or a tuple."""

    def __init__(self, net: Net) -> None:
        super().__init__()
        for name, part in net.parts.items():
            self.add_module(name, build_part(name, part))
        self._calls, self._outputs = net.calls, net.outputs

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        outputs = run(self, self._calls, dict(enumerate(inputs)), self._outputs)
        return outputs[0] if len(outputs) == 1 else tuple(outputs)


class GraphNetwork(SwapNetwork):
    """The swap model of a description. Its children are the parts of the description's top net.

    One direction is found by rule, not by role: the face is fed to every input, and only the calls that the side's
    outputs depend on are run.
    """

    def __init__(self, description: GraphDescription) -> None:
        super().__init__()
        self.description = description
        net = description.net
        for name, part in net.parts.items():
            self.add_module(name, build_part(name, part))
        self._paths = []
        for wanted in description.sides:
            # All inputs carry the same face on a swap path, so they count as one value.
            shared = dict.fromkeys(range(len(net.inputs)), 0)
            calls = tuple(Call(c.part, tuple(shared.get(v, v) for v in c.inputs), c.outputs) for c in net.calls)
            merged, outputs = merge_equal(needed(calls, wanted), wanted)
            self._paths.append((merged, outputs))

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(C, H, W) of a face."""
        return self.description.net.inputs[0]

    def parts(self, side: int) -> dict[str, nn.Module]:
        return {call.part: getattr(self, call.part) for call in self._paths[side][0]}

    def swap(self, face: Tensor, side: int) -> list[Tensor]:
        calls, outputs = self._paths[side]
        return run(self, calls, {0: face}, outputs)

    def forward(self, faces: list[Tensor]) -> list[list[Tensor]]:
        net, sides = self.description.net, self.description.sides
        if len(net.inputs) != len(faces):
            return super().forward(faces)
        wanted = tuple(value for side in sides for value in side)
        outputs = run(self, net.calls, dict(enumerate(faces)), wanted)
        split = len(sides[0])
        return [outputs[:split], outputs[split:]]


def check_graph(description: GraphDescription, source: str) -> None:
    """Run a description once, both ways that a model runs, on the meta device: shapes only, no values, no weights.

    Raises:
        CorruptModelError: it cannot be built or run, or gives no square face for each face that goes in. Names
            `source`.
    """
    count = 2
    try:
        with torch.device("meta"), torch.no_grad():
            network = GraphNetwork(description)
            face = torch.empty(count, *network.input_shape)
            trained = network.train()([face] * network.sides)
            swapped = [network.eval().swap(face, side) for side in range(network.sides)]
        shapes = [[tuple(output.shape) for output in outputs] for outputs in (*trained, *swapped)]
    except (*_WRONG_GRAPH, CorruptModelError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise CorruptModelError(f"{source}: the graph is damaged ({reason}): restore a backup") from error
    sound = all(len(s) == 4 and s[0] == count and s[1] in (1, 3) and s[2] == s[3] for s in shapes[0])
    if not sound or any(other != shapes[0] for other in shapes) or all(shape[1] != 3 for shape in shapes[0]):
        given = " and ".join(str([list(shape[1:]) for shape in outputs]) for outputs in shapes[: network.sides])
        raise CorruptModelError(
            f"{source}: its graph gives {given} for the two sides, no equal square faces: restore a "
            "backup or migrate the model again"
        )


_WRONG_GRAPH = (
    RuntimeError, TypeError, ValueError, IndexError, KeyError, AttributeError, AssertionError, ArithmeticError,
)  # fmt: skip
"""What torch raises when shapes or attributes make no sense."""
