"""Every training option, by section. Names, defaults and ranges are those that users of the original system know."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self

from fsdeploy.config.option import from_mapping, nearest, option, specs
from fsdeploy.errors import ConfigError

LOSS_NAMES = (
    "ffl", "flip", "gmsd", "l_inf_norm", "laploss", "logcosh", "lpips_alex", "lpips_squeeze", "lpips_vgg16", "mae",
    "ms_ssim", "mse", "pixel_gradient_diff", "smooth_loss", "ssim",
)  # fmt: skip
PRIMARY_LOSS_NAMES = tuple(n for n in LOSS_NAMES if n != "flip" and not n.startswith("lpips"))
OPTIMIZER_NAMES = ("adabelief", "adam", "adamax", "adamw", "lion", "nadam", "rms-prop")
MASK_NAMES = (
    "bisenet-fp_face", "bisenet-fp_head", "components", "custom_face", "custom_head", "extended", "none", "unet-dfl",
    "vgg-clear", "vgg-obstructed",
)  # fmt: skip


@dataclass(frozen=True)
class FaceOptions:
    """Which part of the extracted face is trained on."""

    centering: str = option("face", "Where the crop is centred.", choices=("face", "head", "legacy"), fixed=True)
    coverage: float = option(
        100.0, "Percent of the centred face that is trained on.", minimum=62.5, maximum=100.0, fixed=True
    )
    vertical_offset: int = option(
        0,
        "Shift of the crop in percent of its edge; positive moves the face down.",
        minimum=-25,
        maximum=25,
        fixed=True,
    )


@dataclass(frozen=True)
class InitializationOptions:
    """How a new model's weights start."""

    icnr_init: bool = option(False, "Start sub-pixel convolutions without checkerboard (ICNR).", fixed=True)
    conv_aware_init: bool = option(False, "Start all convolutions convolution-aware (slow to build).", fixed=True)


@dataclass(frozen=True)
class LRFinderOptions:
    """The learning rate finder."""

    lr_finder_iterations: int = option(1000, "Steps of the scan.", minimum=100, maximum=10000, step=100, fixed=True)
    lr_finder_mode: str = option(
        "set", "Set the rate, also draw the curve, or draw and stop.",
        choices=("set", "graph_and_set", "graph_and_exit"), fixed=True,
    )  # fmt: skip
    lr_finder_strength: str = option(
        "default", "How far below the minimum of the curve the rate is set.",
        choices=("default", "aggressive", "extreme"), fixed=True,
    )  # fmt: skip


@dataclass(frozen=True)
class NetworkOptions:
    """Options of every network and of the loop's arithmetic."""

    reflect_padding: bool = option(False, "Pad convolutions by reflection instead of zeros.", fixed=True)
    mixed_precision: bool = option(False, "Compute in half precision where it is safe; weights stay float32.")
    nan_protection: bool = option(True, "Stop before the model is spoilt when a loss is not finite.")
    convert_batchsize: int = option(16, "Faces per batch when converting.", minimum=1, maximum=32)


@dataclass(frozen=True)
class LossOptions:
    """What is minimised. Weights are percent of the first function's."""

    loss_function: str = option("ssim", "First loss function.", choices=PRIMARY_LOSS_NAMES)
    loss_function_2: str = option("mse", "Second loss function.", choices=(*LOSS_NAMES, "none"))
    loss_weight_2: int = option(100, "Weight of the second function in percent.", minimum=0, maximum=400)
    loss_function_3: str = option("none", "Third loss function.", choices=(*LOSS_NAMES, "none"))
    loss_weight_3: int = option(0, "Weight of the third function in percent.", minimum=0, maximum=400)
    loss_function_4: str = option("none", "Fourth loss function.", choices=(*LOSS_NAMES, "none"))
    loss_weight_4: int = option(0, "Weight of the fourth function in percent.", minimum=0, maximum=400)
    mask_loss_function: str = option("mse", "Loss of a learned mask.", choices=("mae", "mse"))
    eye_multiplier: int = option(3, "Extra weight of the eye area; 1 is off.", minimum=1, maximum=40)
    mouth_multiplier: int = option(2, "Extra weight of the mouth area; 1 is off.", minimum=1, maximum=40)
    penalized_mask_loss: bool = option(True, "Count the loss inside the face mask only.", fixed=True)


@dataclass(frozen=True)
class MaskOptions:
    """The face mask used by the loss and by a learned mask."""

    mask_type: str = option("extended", "Which mask; landmark masks are drawn, others are stored.",
                            choices=MASK_NAMES, fixed=True)  # fmt: skip
    mask_dilation: float = option(0.0, "Grow (positive) or shrink the mask, percent of its edge.",
                                  minimum=-5.0, maximum=5.0)  # fmt: skip
    mask_blur_kernel: int = option(3, "Blur of the mask in pixels at stored size; 0 is off.", minimum=0, maximum=9)
    mask_threshold: int = option(4, "Percent at either end that is cut to fully out or in.", minimum=0, maximum=50)
    learn_mask: bool = option(False, "Give the model a mask output.", fixed=True)


@dataclass(frozen=True)
class OptimizerOptions:
    """How weights are updated."""

    optimizer: str = option("adam", "Optimizer.", choices=OPTIMIZER_NAMES, fixed=True)
    learning_rate: float = option(5e-5, "Learning rate.", minimum=1e-7, maximum=1e-1)
    epsilon_exponent: int = option(-7, "Exponent of the optimizer's epsilon; about -16 for adabelief.",
                                   minimum=-20, maximum=0)  # fmt: skip
    save_optimizer: str = option("exit", "When optimizer state is saved with the weights.",
                                 choices=("never", "always", "exit"))  # fmt: skip
    gradient_clipping: str = option("none", "How gradients are clipped.",
                                    choices=("autoclip", "global_norm", "norm", "value", "none"))  # fmt: skip
    clipping_value: float = option(1.0, "Clipping value; tenths of a percentile for autoclip.",
                                   minimum=0.0, maximum=10.0)  # fmt: skip
    autoclip_history: int = option(10000, "Gradient norms that autoclip remembers; 0 is all.",
                                   minimum=0, maximum=100000)  # fmt: skip
    weight_decay: float = option(0.0, "Weight decay of convolution and dense kernels.", minimum=0.0, maximum=1.0)
    gradient_accumulation: int = option(1, "Batches per optimizer step.", minimum=1, maximum=100)
    # At 1 a moment would never take in a gradient, and its bias correction would divide by zero.
    ada_beta_1: float = option(0.9, "Decay of the first moment.", minimum=0.0, maximum=0.99999, fixed=True)
    ada_beta_2: float = option(0.999, "Decay of the second moment.", minimum=0.0, maximum=0.99999, fixed=True)
    ada_amsgrad: bool = option(False, "AMSGrad variant of adam, adamw and adabelief.", fixed=True)


@dataclass(frozen=True)
class LoaderOptions:
    """How faces are read. Never stored with a model."""

    num_processes: int = option(4, "Workers that prepare faces; 0 prepares them when they are asked for.",
                                minimum=0, maximum=32)  # fmt: skip
    pre_fetch: int = option(2, "Batches prepared ahead per worker.", minimum=1, maximum=10)
    augment_on: str = option("auto", "Where faces are varied; auto takes the training device if it is no CPU.",
                             choices=("auto", "cpu", "device"))  # fmt: skip
    cache_budget: int = option(4096, "Megabytes of finished crops to keep, so a face is decoded once; 0 keeps none.",
                               minimum=0, maximum=1048576)  # fmt: skip
    cache_folder: str = option("", "Folder for a crop cache that outlives the run; empty keeps crops in memory.")


@dataclass(frozen=True)
class AugmentationOptions:
    """How samples are varied, and how previews look. Never stored with a model."""

    preview_images: int = option(14, "Faces per side in previews.", minimum=2, maximum=16, step=2)
    mask_opacity: int = option(30, "Opacity of the mask overlay in percent.", minimum=0, maximum=100)
    mask_color: str = option("#ff0000", "Colour of the mask overlay.", form="#rrggbb", pattern="#[0-9a-fA-F]{6}")
    zoom_amount: int = option(5, "Largest zoom in percent.", minimum=0, maximum=25)
    rotation_range: int = option(10, "Largest rotation in degrees.", minimum=0, maximum=25)
    shift_range: int = option(5, "Largest shift in percent of the edge.", minimum=0, maximum=25)
    flip_chance: int = option(50, "Chance of a mirrored sample in percent.", minimum=0, maximum=75)
    color_lightness: int = option(30, "Largest lightness change in percent.", minimum=0, maximum=75)
    color_ab: int = option(8, "Largest colour change in percent.", minimum=0, maximum=50)
    color_clahe_chance: int = option(50, "Chance of local contrast equalisation in percent.", minimum=0, maximum=75)
    color_clahe_max_size: int = option(4, "Largest grid step of local contrast equalisation.", minimum=1, maximum=8)


@dataclass(frozen=True)
class TrainingOptions:
    """All sections. Option names are unique across sections, so a flat mapping names each of them."""

    face: FaceOptions = field(default_factory=FaceOptions)
    initialization: InitializationOptions = field(default_factory=InitializationOptions)
    lr_finder: LRFinderOptions = field(default_factory=LRFinderOptions)
    network: NetworkOptions = field(default_factory=NetworkOptions)
    loss: LossOptions = field(default_factory=LossOptions)
    mask: MaskOptions = field(default_factory=MaskOptions)
    optimizer: OptimizerOptions = field(default_factory=OptimizerOptions)
    loader: LoaderOptions = field(default_factory=LoaderOptions)
    augmentation: AugmentationOptions = field(default_factory=AugmentationOptions)

    @classmethod
    def from_flat(cls, values: Mapping[str, Any]) -> Self:
        """Build all sections from option name -> value; missing names take their default.

        Raises:
            ConfigError: unknown name or invalid value.
        """
        left = dict(values)
        made = {}
        for section in fields(cls):
            kind = type(getattr(cls(), section.name))
            made[section.name] = from_mapping(kind, {name: left.pop(name) for name in specs(kind) if name in left})
        if left:
            known = [name for section in fields(cls) for name in specs(type(getattr(cls(), section.name)))]
            raise ConfigError(f"unknown option '{next(iter(left))}'{nearest(next(iter(left)), known)}")
        return cls(**made)

    def flat(self) -> dict[str, Any]:
        """Option name -> value over all sections."""
        return {
            entry.name: getattr(getattr(self, section.name), entry.name)
            for section in fields(self)
            for entry in fields(getattr(self, section.name))
        }
