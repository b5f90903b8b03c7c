"""Batch norms folded into the convolutions before them."""
from torch import nn


def fold_neighbours(net):
    """Folds each norm into the convolution that its module names just before it."""
    for module in list(net.modules()):
        children = list(module.named_children())
        for (name, conv), (norm_name, norm) in zip(children, children[1:]):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(module, name, nn.utils.fuse_conv_bn_eval(conv, norm))
                # timm's norms have an activation of their own.
                setattr(module, norm_name, getattr(norm, "act", nn.Identity()))
    return net


def scale_and_shift(norm):
    """What a norm in eval mode multiplies by, and then adds."""
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    return scale, norm.bias - norm.running_mean * scale


def append(conv, scale, shift=None):
    """Folds a scale of the channels, and a shift, into the convolution before them."""
    conv.weight = nn.Parameter(conv.weight * scale[:, None, None, None], requires_grad=False)
    bias = None if conv.bias is None else conv.bias * scale
    if shift is not None:
        bias = shift if bias is None else bias + shift
    conv.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
