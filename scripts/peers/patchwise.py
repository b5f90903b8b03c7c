"""HyperSeg's dynamic convolution: a map in patches, each of which has weights of its own."""
import torch
import torch.nn.functional as F
from torch import nn


def cut(x, grid, halo=0):
    """[B, C, H, W] → [B·rows·columns, C, h, w], patches row by row; with a halo, each brings so many pixels of
    its neighbours along, or of the map's reflection."""
    (b, c, h, w), (rows, columns) = map(int, x.shape), grid
    ph, pw = h // rows, w // columns
    if halo:
        if torch.onnx.is_in_onnx_export():
            return gathered(x, grid, halo)
        x = F.pad(x, (halo,) * 4, mode="reflect")
        x = x.unfold(2, ph + 2 * halo, ph).unfold(3, pw + 2 * halo, pw).permute(0, 1, 2, 4, 3, 5)
    else:
        x = x.reshape(b, c, rows, ph, columns, pw)
    return x.permute(0, 2, 4, 1, 3, 5).reshape(-1, c, ph + 2 * halo, pw + 2 * halo)


def gathered(x, grid, halo):
    """The same for ONNX, where `unfold` would be one operation a window: rows and columns by their numbers, all
    channels of a pixel together, which is the fastest of the ways that were tried in ONNX Runtime."""
    (b, c, h, w), (rows, columns) = map(int, x.shape), grid
    ph, pw = h // rows + 2 * halo, w // columns + 2 * halo
    x = x.permute(0, 2, 3, 1).index_select(1, reflected(h, rows, halo)).index_select(2, reflected(w, columns, halo))
    x = x.reshape(b, rows, ph, columns, pw * c).transpose(2, 3).reshape(-1, ph * pw, c)
    return x.transpose(1, 2).reshape(-1, c, ph, pw)


def reflected(size, parts, halo):
    """The rows that the patches read, patch by patch, the map's border reflected."""
    part = size // parts
    at = torch.arange(parts)[:, None] * part + torch.arange(-halo, part + halo)
    return (size - 1 - (size - 1 - at.abs()).abs()).flatten()


def join(x, grid, batch):
    """The patches as a map again."""
    (_, c, ph, pw), (rows, columns) = map(int, x.shape), grid
    x = x.reshape(batch, rows, columns, c, ph, pw).permute(0, 3, 1, 4, 2, 5)
    return x.reshape(batch, c, rows * ph, columns * pw)


def weights_of_patches(weights):
    """[B, P, rows, columns] → [B·rows·columns, P]."""
    return weights.permute(0, 2, 3, 1).reshape(-1, int(weights.shape[1]))


def pointwise(x, weights, bias=None):
    """1×1 on patches, [N, C, h, w] → [N, O, h, w]; `weights`: [N, O·C]. As matrix products, which is faster than one
    convolution with a group a patch."""
    n, c, h, w = map(int, x.shape)
    x, weights = x.reshape(n, c, h * w), weights.reshape(n, -1, c)
    y = torch.bmm(weights, x) if bias is None else torch.baddbmm(bias[:, None], weights, x)
    return y.reshape(n, -1, h, w)


def depthwise(x, weights, kernel, bias=None):
    """k×k on each channel of patches with their halo, [N, C, h + k - 1, w + k - 1] → [N, C, h, w]; `weights`:
    [N, C·k·k]. As one convolution with a group a channel of a patch, which is faster than shifted sums."""
    n, c, h, w = map(int, x.shape)
    bias = None if bias is None else bias.repeat(n)
    y = F.conv2d(x.reshape(1, n * c, h, w), weights.reshape(n * c, 1, kernel, kernel), bias, groups=n * c)
    return y.reshape(n, c, h - kernel + 1, w - kernel + 1)


class Patchwise(nn.Module):
    """One dynamic convolution by itself: 1×1 over all channels; larger ones are depthwise."""

    def __init__(self, kernel, grid):
        super().__init__()
        self.kernel, self.grid = kernel, grid

    def forward(self, x, weights):
        patches, weights = cut(x, self.grid, self.kernel // 2), weights_of_patches(weights)
        y = pointwise(patches, weights) if self.kernel == 1 else depthwise(patches, weights, self.kernel)
        return join(y, self.grid, len(x))
