"""Loss functions that compare local structure: SSIM, multi-scale SSIM, gradient similarity."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fsdeploy.training.losses.kernels import blur, correlate, gaussian_1d

_C1, _C2 = 0.01**2, 0.03**2


def _similarity(true: Tensor, pred: Tensor, kernel: Tensor) -> tuple[Tensor, Tensor]:
    """Luminance and contrast-structure terms of SSIM, each (N, C, H, W) (Wang et al., 2004)."""
    # Moments about 0.5 instead of 0: the same variances with far less float32 cancellation.
    t, p = true - 0.5, pred - 0.5
    mean_t, mean_p, square, product = blur(torch.cat([t, p, t * t + p * p, t * p]), kernel, "reflect").chunk(4)
    covariance = product - mean_t * mean_p
    variances = (square - mean_t.square() - mean_p.square()).clamp_min(0.0)
    mean_t, mean_p = mean_t + 0.5, mean_p + 0.5
    luminance = (2.0 * mean_t * mean_p + _C1) / (mean_t.square() + mean_p.square() + _C1)
    return luminance, (2.0 * covariance + _C2) / (variances + _C2)


class SSIM(nn.Module):
    """`1 - SSIM` per value (0..2, not halved); 11 x 11 Gaussian window, sigma 1.5, borders reflected."""

    kernel: Tensor
    smallest = 6
    """Least edge of an image in pixels."""

    def __init__(self, size: int = 11, sigma: float = 1.5) -> None:
        super().__init__()
        self.register_buffer("kernel", gaussian_1d(size, sigma), persistent=False)

    def forward(self, true: Tensor, pred: Tensor) -> Tensor:
        luminance, contrast = _similarity(true, pred, self.kernel)
        return 1.0 - luminance * contrast


class MSSSIM(nn.Module):
    """`1 -` multi-scale SSIM per value (Wang et al., 2003): five scales, each resized to the image.

    Images under 176 px get the largest odd window that fits the coarsest scale. Windows depend on the image size alone.
    """

    power_factors = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
    smallest = 48
    """Least edge of an image in pixels."""

    def __init__(self, size: int = 11, sigma: float = 1.5) -> None:
        super().__init__()
        for taps in range(3, size + 1, 2):
            self.register_buffer(f"kernel_{taps}", gaussian_1d(taps, sigma), persistent=False)
        self.size = size

    def window_size(self, height: int) -> int:
        """Taps of the Gaussian window for images of `height` rows."""
        coarsest = height // 2 // 2 // 2 // 2
        return min(self.size, coarsest - 1 + coarsest % 2)

    def forward(self, true: Tensor, pred: Tensor) -> Tensor:
        height, width = true.shape[2:]
        kernel: Tensor = getattr(self, f"kernel_{self.window_size(height)}")
        result: Tensor | None = None
        last = len(self.power_factors) - 1
        for scale, power in enumerate(self.power_factors):
            if scale:
                true, pred = _halve(true), _halve(pred)
            luminance, contrast = _similarity(true, pred, kernel)
            values = luminance * contrast if scale == last else contrast
            if values.shape[2:] != (height, width):
                values = F.interpolate(values, size=(height, width), mode="bilinear", align_corners=False)
            # The slope of x^w is infinite at 0: values at or below 0 give 0 with no gradient.
            factor = torch.where(values > 0.0, values.clamp_min(1e-6).pow(power), 0.0)
            result = factor if result is None else result * factor
        assert result is not None
        return 1.0 - result


def _halve(image: Tensor) -> Tensor:
    height, width = image.shape[2:]
    if height % 2 or width % 2:
        image = F.pad(image, (0, width % 2, 0, height % 2), mode="replicate")
    return F.avg_pool2d(image, 2)


class GMSD(nn.Module):
    """`1 -` similarity of the row and column gradients of every channel, mean over the six: (N, 1, H, W).

    After Xue et al. (Gradient Magnitude Similarity Deviation, 2014), as a map and with signed gradients: an edge that
    points the other way counts as different.
    """

    kernel: Tensor
    smallest = 3
    """Least edge of an image in pixels."""

    def __init__(self) -> None:
        super().__init__()
        outer, inner = [0.0007, 0.0052, 0.0370, 0.0052, 0.0007], [0.0037, 0.1187, 0.2589, 0.1187, 0.0037]
        rows = torch.tensor([outer, inner, [0.0] * 5, [-v for v in inner], [-v for v in outer]])
        self.register_buffer("kernel", torch.stack([rows, rows.T]), persistent=False)

    def _gradients(self, image: Tensor) -> Tensor:
        return correlate(F.pad(image, (2, 2, 2, 2), mode="reflect"), self.kernel.to(image.dtype))

    def forward(self, true: Tensor, pred: Tensor) -> Tensor:
        edges_t, edges_p = self._gradients(torch.cat([true, pred])).chunk(2)
        constant = 0.0025
        quality = (2.0 * edges_t * edges_p + constant) / (edges_t.square() + edges_p.square() + constant)
        return 1.0 - quality.mean(dim=1, keepdim=True)
