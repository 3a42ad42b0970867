"""The network of `masks.xform`."""

from torch import nn


def small() -> nn.Module:
    """A Unet with one output a pixel, on a ResNet-18 without weights."""
    from segmentation_models_pytorch import Unet

    return Unet("resnet18", encoder_weights=None, classes=1, decoder_channels=(64, 32, 16, 8, 8))
