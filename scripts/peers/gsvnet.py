"""GSVNet (Lee, Chen and Peng, ICME 2021) in PyTorch, restated from our crate `gsvnet-seg`, whose README says where the
paper is: flow nets, and a frame between key frames. The nets for key frames are in swiftnet.py and bisenet.py. Tensors
have the names of the authors' checkpoints. check_gsvnet.py holds all of it to golden files."""
import torch
import torch.nn.functional as F
from torch import nn

from bisenet import BiSeNet, resized_like
from swiftnet import SwiftNet

CLASSES = 19
# Of the flow's values, to a pixel of an eighth of the frame.
FLOW_DIVISOR = 4
# Rows and columns that each candidate's pixel is away, from -1 to 1, as the bank of delay kernels has them. The bank's
# last kernel is empty.
DELAYS = [(row, column) for row in (-1, 0, 1) for column in (-1, 0, 1) if (row, column) != (0, 0)]
CANDIDATES = 1 + len(DELAYS) + 1 + 1
LAPLACIAN = torch.tensor([[[[1.0, 1.0, 1.0], [1.0, -8.0, 1.0], [1.0, 1.0, 1.0]]]])
# Factors on seeded weights of the frame between key frames: things move by up to four pixels.
GAIN = [{"prefix": "ofnet.toflow.", "factor": 2.0}]


def build(name):
    return NETS[name]()


def conv(inputs, outputs, kernel=3, stride=1, dilation=1, act=nn.LeakyReLU(0.1, inplace=True), norm=True):
    border = dilation * (kernel // 2)
    layers = [nn.Conv2d(inputs, outputs, kernel, stride, border, dilation)]
    return nn.Sequential(*layers, *([nn.BatchNorm2d(outputs)] if norm else []), act)


class Flow(nn.Module):
    def forward(self, now, before):
        """Eighths of two frames, [B, 3, h, w], → [B, 2, h, w]: how far right and down each pixel of `now` was."""
        frames = (now, before) if self.is_now_first else (before, now)
        return resized_like(self.body(torch.cat(frames, 1), {}), now)


class LightFlow(Flow):
    is_now_first = True

    def __init__(self):
        super().__init__()
        self.conv1 = conv(6, 32, stride=2)
        self.conv2 = conv(32, 64, stride=2)
        for i in range(4):
            self.add_module(f"conv_dilate_{i + 1}", conv(64, 64, dilation=2**i))
        self.conv_merge = conv(256, 64, 1)
        self.toflow = nn.Conv2d(64, 2, 3, padding=1)

    def body(self, frames, seen):
        seen["conv1"] = x = self.conv1(frames)
        seen["conv2"] = x = self.conv2(x)
        sums = []
        for i in range(1, 5):
            y = getattr(self, f"conv_dilate_{i}")(x)
            seen[f"x{i}"] = y = y.add_(sums[-1]) if sums else y
            sums.append(y)
        seen["merged"] = x = self.conv_merge(torch.cat(sums, 1)).add_(x)
        return self.toflow(x)


class FlowNetS(Flow):
    """FlowNet2's (Ilg et al., CVPR 2017)."""

    is_now_first = False
    encoder = {
        "conv1": (6, 64, 7, 2),
        "conv2": (64, 128, 5, 2),
        "conv3": (128, 256, 5, 2),
        "conv3_1": (256, 256, 3, 1),
        "conv4": (256, 512, 3, 2),
        "conv4_1": (512, 512, 3, 1),
        "conv5": (512, 512, 3, 2),
        "conv5_1": (512, 512, 3, 1),
        "conv6": (512, 1024, 3, 2),
        "conv6_1": (1024, 1024, 3, 1),
    }
    # Number, the encoder's layer beside it, channels of that one and of its own.
    decoder = [(5, "conv5_1", 512, 512), (4, "conv4_1", 512, 256), (3, "conv3_1", 256, 128), (2, "conv2", 128, 64)]

    def __init__(self):
        super().__init__()
        for name, layer in self.encoder.items():
            self.add_module(name, conv(*layer, norm=False))
        channels = 1024
        self.predict_flow6 = nn.Conv2d(channels, 2, 3, padding=1)
        for n, _, beside, own in self.decoder:
            self.add_module(f"deconv{n}", nn.Sequential(nn.ConvTranspose2d(channels, own, 4, 2)))
            self.add_module(f"upsampled_flow{n + 1}_to_{n}", nn.ConvTranspose2d(2, 2, 4, 2))
            channels = beside + own + 2
            self.add_module(f"predict_flow{n}", nn.Conv2d(channels, 2, 3, padding=1))

    def body(self, frames, seen):
        x, maps = frames, {}
        for name in self.encoder:
            seen[name] = maps[name] = x = getattr(self, name)(x)
        flow = seen["predict_flow6"] = self.predict_flow6(x)
        for n, beside, _, _ in self.decoder:
            h, w = map(int, maps[beside].shape[2:])
            up = seen[f"upsampled_flow{n + 1}_to_{n}"] = getattr(self, f"upsampled_flow{n + 1}_to_{n}")(flow)
            # Cropped before it is activated: fewer values.
            x = F.leaky_relu(getattr(self, f"deconv{n}")(x)[:, :, :h, :w], 0.1)
            x = torch.cat([maps[beside], x, up[:, :, :h, :w]], 1)
            if n == 2:
                x = F.avg_pool2d(x, 2)
            flow = seen[f"predict_flow{n}"] = getattr(self, f"predict_flow{n}")(x)
        return flow


class Guide(nn.Module):
    """G: each pixel's weights of the candidates, from f and the edges."""

    def __init__(self):
        super().__init__()
        relu = nn.ReLU(inplace=True)
        twice = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
        self.guide_conv = conv(CLASSES + 1, 32, act=relu)
        self.guide_conv_feat = nn.Sequential(*conv(32, 64, stride=2, act=relu), *conv(64, 128, stride=2, act=relu))
        self.guide_deconv = nn.Sequential(twice, *conv(128, 64, act=relu), twice, *conv(64, 32, act=relu))
        self.guide_decoder = conv(32, CANDIDATES, act=relu)

    def forward(self, intra, edges, seen):
        seen["g0"] = g0 = self.guide_conv(torch.cat([intra, edges], 1))
        seen["e2"] = e2 = self.guide_conv_feat(g0)
        seen["guide_raw"] = raw = self.guide_decoder(self.guide_deconv(e2).add_(g0))
        return raw / (raw.sum(1, keepdim=True) + 1e-9)


class Propagation(nn.Module):
    """What comes after the warp."""

    def __init__(self):
        super().__init__()
        relu = nn.ReLU(inplace=True)
        layers = *conv(3, 32, act=relu), *conv(32, 32, act=relu), nn.Conv2d(32, CLASSES, 3, padding=1)
        self.intra_net = nn.Module()
        self.intra_net.intra_net = nn.Sequential(*layers)
        self.guide = Guide()

    def forward(self, now, warped, seen):
        seen["intra"] = intra = self.intra_net.intra_net(now)
        seen["edge"] = edges = edges_of(warped)
        seen["weights"] = weights = self.guide(intra, edges, seen)
        return filtered(warped, weights, intra)


def edges_of(scores):
    """[B, C, h, w] → [B, 1, h, w]: one where the labels' Laplacian is not zero."""
    # `max` takes a third of `argmax`'s time. ONNX has a maximum and its index by themselves only.
    index = scores.argmax(1, keepdim=True) if torch.onnx.is_in_onnx_export() else scores.max(1, keepdim=True)[1]
    return (F.conv2d(index.float(), LAPLACIAN, padding=1) != 0).float()


def filtered(warped, weights, intra):
    """The candidates' sum by their weights, one after the other: the stack of all of them takes several times as long.
    On contiguous maps, whatever the layout of the rest, for a weight is shared by all channels of its pixel."""
    warped, weights, intra = (map.contiguous() for map in (warped, weights, intra))
    h, w = map(int, warped.shape[2:])
    padded = F.pad(warped, (1, 1, 1, 1))
    y = warped * weights[:, :1]
    for i, (row, column) in enumerate(DELAYS, 1):
        y.addcmul_(padded[:, :, 1 + row : 1 + row + h, 1 + column : 1 + column + w], weights[:, i : i + 1])
    return y.addcmul_(intra, weights[:, -1:])


class Warp:
    """Scores from where the flow says that each pixel was; zero outside."""

    def __init__(self):
        self.grids = {}

    def __call__(self, scores, flow):
        still, unit = self.grid(*map(int, scores.shape[2:]))
        grid = torch.addcmul(still, flow.permute(0, 2, 3, 1), unit)
        # Channels last is how the sampling reads them fastest, the conversion included; its result is contiguous.
        scores = scores.contiguous(memory_format=torch.channels_last)
        return F.grid_sample(scores, grid, padding_mode="zeros", align_corners=True)

    def grid(self, h, w):
        """Where each pixel is, column, then row, from -1 to 1 with both ends; and what it moves by one of the flow."""
        if (h, w) not in self.grids:
            # Else the first run's mode would be the tensors', and the exporter could not use them.
            with torch.inference_mode(False):
                rows, columns = torch.linspace(-1, 1, h), torch.linspace(-1, 1, w)
                still = torch.stack([columns.expand(h, w), rows[:, None].expand(h, w)], 2)[None]
                self.grids[h, w] = still, torch.tensor([2 / (w - 1), 2 / (h - 1)]) / FLOW_DIVISOR
        return self.grids[h, w]


class Between(nn.Module):
    """A frame between key frames: eighths of it and of the one before, and that one's scores, → its scores."""

    def __init__(self):
        super().__init__()
        self.ofnet, self.grm, self.warp = LightFlow(), Propagation(), Warp()

    def forward(self, now, before, scores, seen=None):
        seen = {} if seen is None else seen
        seen["flow"] = flow = self.ofnet(now, before)
        seen["warped"] = warped = self.warp(scores, flow)
        return self.grm(now, warped, seen)


NETS = {
    "swiftnet-r18": SwiftNet,
    "bisenet-r18": BiSeNet,
    "bisenet-x39": lambda: BiSeNet("xception39"),
    "light-flow": LightFlow,
    "flownet-s": FlowNetS,
    "between": Between,
}
