"""The mobilenet FPNs for inference on a CPU: fewer operations and passes over memory, the same answer to rounding.

For generators whose norms are folded (:func:`~deblur_train.inference.fold.folded`). Activations and sums happen as
convolutions write. A dense 3x3 convolution of an upsampled map is a 2x2 convolution of the small one that gives all
pixels of a block at once: 4 products where there were 9. Laterals without bias merge with the dense convolution behind
them. Depthwise convolutions, bound by memory, go strip by strip.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from deblur_train.inference.fused import Conv, Source, as_map, conv_of, empty, pixels, strips
from deblur_train.models.generator import FPNGenerator, MobileNetPyramid
from deblur_train.models.mobilenet import TAPS, InvertedResidual

LEAST = 64  # channels in and out from which minimal filtering pays


def filtered(conv: Conv) -> Any:
    """``conv``, or the same by minimal filtering where that is faster."""
    out, inside, taps, _ = conv.weight.shape
    fits = conv.stride == conv.groups == 1 and taps in (2, 3) and conv.padding == 1 and conv.act != "relu6"
    if not fits or min(out, inside) < LEAST or out % 8 or inside % 8:
        return conv
    from deblur_train.inference.filtered import Filtered  # with numba, for those that need it

    return Filtered(conv)


class UpConv:
    """A padded 3x3 convolution of what nearest upsampling by ``factor`` makes of a map.

    The pixels of a block of ``factor`` x ``factor`` that straddles four pixels of the small map see only these four, so
    that a 2x2 convolution with ``factor**2`` times the channels gives them all. Blocks begin half a block outside.
    """

    def __init__(self, weight: Tensor, factor: int) -> None:
        w = weight.detach().double()
        out, inside = w.shape[:2]
        self.factor, self.channels = factor, out
        blocks = w.new_zeros(factor, factor, out, inside, 2, 2)
        later = lambda p, k: int(p + k - 1 >= factor // 2)  # noqa: E731 (which of the two pixels a tap falls on)
        for py in range(factor):
            for px in range(factor):
                for ky in range(3):
                    for kx in range(3):
                        blocks[py, px, :, :, later(py, ky), later(px, kx)] += w[:, :, ky, kx]
        self.conv = filtered(Conv(blocks.reshape(-1, inside, 2, 2), None, padding=1))

    def __call__(self, x: Tensor, start: int = 0, stop: int | None = None) -> Tensor:
        """Rows [start, stop) of ``(h + 1, w + 1, factor, factor, channels)``: blocks from half a block above and left."""
        height, stop = x.shape[2], x.shape[2] + 1 if stop is None else stop
        outer = start == 0 or stop > height
        y = self.conv(x[:, :, max(0, start - 1) : stop], padding_rows=1 if outer else 0)
        first = 1 if outer and start else 0
        y = y[:, :, first : first + stop - start]
        return pixels(y).unflatten(2, (self.factor, self.factor, self.channels))


class Raised:
    """A map ``(1, channels, H, W)`` that sums of :class:`UpConv` are collected in, with a margin for their outer blocks."""

    def __init__(self, channels: int, height: int, width: int, margin: int) -> None:
        self.margin = margin
        self.whole = torch.empty(height + 2 * margin, width + 2 * margin, channels)

    def take(self, up: UpConv, x: Tensor, first: bool) -> None:
        cut, f = self.margin - up.factor // 2, up.factor
        h, w = self.whole.shape[:2]
        blocks = self.whole[cut : h - cut, cut : w - cut].unflatten(1, (-1, f)).unflatten(0, (-1, f))
        blocks = blocks.permute(0, 2, 1, 3, 4)
        if first:
            blocks.copy_(up(x))
        else:
            blocks.add_(up(x))

    def map(self) -> Tensor:
        m = self.margin
        return as_map(self.whole[m:-m, m:-m].contiguous())


class Inverted:
    """An inverted residual, strip by strip where its expanded map is large. ``before``: the convolution that expands."""

    def __init__(self, block: InvertedResidual, stem: Conv | None = None) -> None:
        convs = [m for m in block.conv if isinstance(m, nn.Conv2d)]
        self.before = conv_of(convs[0], "relu6") if len(convs) == 3 else stem
        self.depthwise, self.project = conv_of(convs[-2], "relu6"), conv_of(convs[-1])
        self.skip = block.skip

    def __call__(self, x: Tensor) -> Tensor:
        before = self.before
        assert before is not None
        expanded = x.shape[3] // before.stride
        stride = before.stride * self.depthwise.stride
        height, width = x.shape[2] // stride, x.shape[3] // stride
        out = empty(len(self.project.weight), height, width)
        for a, b in strips(height, 4 * self.depthwise.groups * (expanded * self.depthwise.stride + width)):
            y = self.depthwise.rows(lambda i, j: before.of(x, i, j), a, b, height)
            if self.skip:
                self.project.onto(out[:, :, a:b].copy_(x[:, :, a:b]), y)
            else:
                out[:, :, a:b] = self.project(y)
        return out


class Separable:
    """A depthwise 3x3 convolution and a 1x1 with ReLU of a map that is made strip by strip."""

    def __init__(self, pair: Any) -> None:
        self.depthwise, self.pointwise = conv_of(pair[0]), conv_of(pair[1], "relu")

    def __call__(self, source: Source, height: int, width: int) -> Tensor:
        out = empty(len(self.pointwise.weight), height, width)
        for a, b in strips(height, 12 * self.depthwise.groups * width):
            out[:, :, a:b] = self.pointwise(self.depthwise.rows(source, a, b, height))
        return out


def _widened(x: Tensor, factor: int, start: int, stop: int) -> Tensor:
    """Rows of ``x`` upsampled by ``factor``, ``(rows, w, 1, C)``: broadcasting repeats the columns."""
    return pixels(x).index_select(0, torch.arange(start, stop) // factor).unsqueeze(2)


class SeparableJoint:
    """relu(convolution(lateral(side) + upsampled low)) with a separable convolution."""

    def __init__(self, pair: Any, lateral: nn.Conv2d) -> None:
        self.convs, self.lateral = Separable(pair), conv_of(lateral)

    def __call__(self, side: Tensor, low: Tensor) -> Tensor:
        def joined(a: int, b: int) -> Tensor:
            y = self.lateral(side[:, :, a:b])
            pixels(y).unflatten(1, (-1, 2)).add_(_widened(low, 2, a, b))
            return y

        return self.convs(joined, side.shape[2], side.shape[3])


class DenseJoint:
    """The same with a dense 3x3 convolution: of the side through its lateral, and of the low map as it is."""

    def __init__(self, conv: nn.Conv2d, lateral: nn.Conv2d) -> None:
        merged = torch.einsum("omyx,mi->oiyx", conv.weight.double(), lateral.weight[:, :, 0, 0].double())
        self.side = filtered(Conv(merged, conv.bias, "relu", padding=1))
        self.low = UpConv(conv.weight, 2)

    def __call__(self, side: Tensor, low: Tensor) -> Tensor:
        total = Raised(self.low.channels, side.shape[2], side.shape[3], 1)
        total.take(self.low, low, first=True)
        return self.side.onto(total.map(), side)


class SeparableHead:
    def __init__(self, head: Any) -> None:
        self.convs = Separable(head.block0), Separable(head.block1)

    def __call__(self, x: Tensor) -> Tensor:
        for conv in self.convs:
            x = conv(lambda a, b, x=x: x[:, :, a:b], x.shape[2], x.shape[3])  # type: ignore[misc]
        return x


class DenseHead:
    def __init__(self, head: Any) -> None:
        self.convs = [filtered(conv_of(conv, "relu")) for conv in (head.block0, head.block1)]

    def __call__(self, x: Tensor) -> Tensor:
        return self.convs[1](self.convs[0](x))


class SeparableSmooth:
    """relu(convolution(four maps upsampled by 8, 4, 2, 1 side by side)) with a separable convolution."""

    def __init__(self, pair: Any) -> None:
        self.convs = Separable(pair)

    def __call__(self, maps: list[Tensor]) -> Tensor:
        c, height, width = maps[-1].shape[1:]

        def row(a: int, b: int) -> Tensor:
            y = torch.empty(b - a, width, c * len(maps))
            for part, x, factor in zip(y.split(c, dim=2), maps, (8, 4, 2, 1), strict=True):
                part.unflatten(1, (-1, factor)).copy_(_widened(x, factor, a, b))
            return as_map(y)

        return self.convs(row, height, width)


class DenseSmooth:
    """The same with a dense 3x3 convolution, map by map."""

    def __init__(self, conv: nn.Conv2d) -> None:
        *others, first = conv.weight.chunk(4, dim=1)
        self.first = filtered(Conv(first, conv.bias, "relu", padding=1))
        self.others = [UpConv(w, factor) for w, factor in zip(others, (8, 4, 2), strict=True)]

    def __call__(self, maps: list[Tensor]) -> Tensor:
        c, height, width = self.others[0].channels, *maps[-1].shape[2:]
        total = Raised(c, height, width, self.others[0].factor // 2)
        for up, x in zip(self.others, maps, strict=False):
            total.take(up, x, first=up is self.others[0])  # the widest covers all of the margin
        return self.first.onto(total.map(), maps[-1])


class FastFPN:
    """The ``restore`` of a mobilenet FPN with folded norms."""

    def __init__(self, net: FPNGenerator) -> None:
        fpn = net.fpn
        assert isinstance(fpn, MobileNetPyramid)
        features: Any = fpn.features
        blocks, stem = features[1:], conv_of(features[0][0], "relu6")
        self.encoders = [
            [Inverted(b, stem) for b in blocks[first - (i > 0) : stop - 1]]
            for i, (first, stop, _) in enumerate(TAPS)
        ]
        tops = (fpn.td3, fpn.lateral1), (fpn.td2, fpn.lateral2), (fpn.td1, fpn.lateral3)
        heads = net.head1, net.head2, net.head3, net.head4
        joints: Any = (*((top[0], side) for top, side in tops), (net.smooth2[0], fpn.lateral0))
        self.lateral4 = conv_of(fpn.lateral4)
        final: Any = net.final
        if net.backbone_name == "mobilenet-dsc":
            self.joints: list[Any] = [SeparableJoint(*joint) for joint in joints]
            self.heads: list[Any] = [SeparableHead(head) for head in heads]
            self.smooth: Any = SeparableSmooth(net.smooth[0])
            weight, bias = final[1].weight * final[0].weight.view(1, -1, 3, 3), final[1].bias
        else:
            self.joints = [DenseJoint(*joint) for joint in joints]
            self.heads = [DenseHead(head) for head in heads]
            self.smooth = DenseSmooth(net.smooth[0])  # type: ignore[arg-type]
            weight, bias = final.weight, final.bias
        self.final = UpConv(weight, 2)
        self.final.conv.bias = bias.detach().repeat(4)

    def __call__(self, x: Tensor) -> Tensor:
        """``(1, 3, H, W)`` RGB in [-1, 1] to the same; sides are multiples of 32."""
        sides, y = [], x
        for blocks in self.encoders:
            for block in blocks:
                y = block(y)
            sides.append(y)
        level = self.lateral4(sides.pop())
        maps = [self.heads[3](level)]
        for i in (2, 1, 0):
            level = self.joints[i](sides.pop(), level)
            maps.append(self.heads[i](level))
        del level
        y = self.joints[3](sides.pop(), self.smooth(maps))
        return self._finished(x, y)

    def _finished(self, x: Tensor, y: Tensor) -> Tensor:
        height, width = y.shape[2:]
        out = torch.empty_like(x, memory_format=torch.channels_last)
        image, into = pixels(x), pixels(out)
        for a, b in strips(height + 1, 4 * (width + 1) * (y.shape[1] + 24)):
            change = self.final(y, a, b).permute(0, 2, 1, 3, 4).reshape(2 * (b - a), 2 * width + 2, 3)
            top, end = max(0, 2 * a - 1), min(2 * height, 2 * b - 1)
            change = change[top - 2 * a + 1 : end - 2 * a + 1, 1:-1].tanh()
            torch.add(image[top:end], change, out=into[top:end])
        return out.clamp_(-1, 1)
