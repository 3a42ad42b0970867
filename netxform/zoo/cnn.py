"""Small convolutional networks; all pool adaptively, so that 8 x 8 digits and 28 x 28 images both fit."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def _conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


class SmallCNN(nn.Module):
    """conv1, conv2, conv3 and a block `layer4`, then `avgpool` and two dense layers `fc1`, `fc`."""

    def __init__(self, classes: int = 10, channels: int = 1, width: int = 32) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=2, padding=1)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 2 * width, 3, padding=1)
        self.bn3 = nn.BatchNorm2d(2 * width)
        self.relu = nn.ReLU()
        self.layer4 = nn.Sequential(_conv(2 * width, 2 * width, stride=2), _conv(2 * width, 2 * width))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc1 = nn.Linear(2 * width, 2 * width)
        self.dropout = nn.Dropout(0.1)
        self.fc = nn.Linear(2 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """X (N, C, H, W) → logits (N, classes)."""
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        x = self.relu(self.bn3(self.conv3(x)))
        x = torch.flatten(self.avgpool(self.layer4(x)), 1)
        return self.fc(self.dropout(self.relu(self.fc1(x))))


class Sentence(nn.Module):
    """The model of the one-line spec: `fc1` (2048 → 512) lies before `layer4`, so that cutting at `layer4` leaves conv1 to
    conv3, fc1 and layer4 to be factorized, pruned and widened; rank 256 is less than `fc1` has.
    """

    def __init__(self, classes: int = 10, channels: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 32, 3, padding=1)
        self.conv2 = nn.Conv2d(32, 64, 3, stride=2, padding=1)
        self.conv3 = nn.Conv2d(64, 128, 3, stride=2, padding=1)
        self.relu = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(4)
        self.fc1 = nn.Linear(2048, 512)
        self.layer4 = nn.Sequential(nn.Linear(512, 128), nn.ReLU())
        self.fc = nn.Linear(128, classes)

    def forward(self, x: Tensor) -> Tensor:
        """X (N, C, H, W) → logits (N, classes)."""
        x = self.relu(self.conv1(x))
        x = self.relu(self.conv2(x))
        x = self.relu(self.conv3(x))
        x = torch.flatten(self.pool(x), 1)
        return self.fc(self.layer4(self.relu(self.fc1(x))))


class VGGSmall(nn.Module):
    """`features` of plain convolutions, `classifier` of dense layers with dropout (Simonyan, Zisserman, 2015)."""

    def __init__(self, classes: int = 10, channels: int = 1) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *_conv(channels, 32), *_conv(32, 32), nn.MaxPool2d(2), *_conv(32, 64), *_conv(64, 64), nn.MaxPool2d(2)
        )
        self.avgpool = nn.AdaptiveAvgPool2d(2)
        self.classifier = nn.Sequential(nn.Linear(256, 128), nn.ReLU(), nn.Dropout(0.2), nn.Linear(128, classes))

    def forward(self, x: Tensor) -> Tensor:
        """X (N, C, H, W) → logits (N, classes)."""
        return self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))


class Residual(nn.Module):
    """A basic block (He et al., 2016); the shortcut is a 1 x 1 convolution where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU()
        same = stride == 1 and inputs == outputs
        self.downsample = (
            None if same else nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        )

    def forward(self, x: Tensor) -> Tensor:
        """X (N, inputs, H, W) → (N, outputs, H / stride, W / stride)."""
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNetSmall(nn.Module):
    """Three stages of residual blocks."""

    def __init__(self, classes: int = 10, channels: int = 1, width: int = 16) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.layer1 = nn.Sequential(Residual(width, width), Residual(width, width))
        self.layer2 = nn.Sequential(Residual(width, 2 * width, 2), Residual(2 * width, 2 * width))
        self.layer3 = nn.Sequential(Residual(2 * width, 4 * width, 2), Residual(4 * width, 4 * width))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(4 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """X (N, C, H, W) → logits (N, classes)."""
        x = self.layer3(self.layer2(self.layer1(self.relu(self.bn1(self.conv1(x))))))
        return self.fc(torch.flatten(self.avgpool(x), 1))


class DenseLayer(nn.Module):
    """Appends `growth` channels to its input (Huang et al., 2017)."""

    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(inputs)
        self.relu = nn.ReLU()
        self.conv = nn.Conv2d(inputs, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """X (N, inputs, H, W) → (N, inputs + growth, H, W)."""
        return torch.cat([x, self.conv(self.relu(self.norm(x)))], 1)


class DenseNetSmall(nn.Module):
    """Two dense blocks with a transition between them."""

    def __init__(self, classes: int = 10, channels: int = 1, growth: int = 12) -> None:
        super().__init__()
        self.conv0 = nn.Conv2d(channels, 24, 3, padding=1, bias=False)
        self.block1 = nn.Sequential(*(DenseLayer(24 + i * growth, growth) for i in range(3)))
        mid = 24 + 3 * growth
        self.transition = nn.Sequential(nn.BatchNorm2d(mid), nn.ReLU(), nn.Conv2d(mid, mid // 2, 1), nn.AvgPool2d(2))
        self.block2 = nn.Sequential(*(DenseLayer(mid // 2 + i * growth, growth) for i in range(3)))
        last = mid // 2 + 3 * growth
        self.norm = nn.BatchNorm2d(last)
        self.relu = nn.ReLU()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(last, classes)

    def forward(self, x: Tensor) -> Tensor:
        """X (N, C, H, W) → logits (N, classes)."""
        x = self.block2(self.transition(self.block1(self.conv0(x))))
        return self.classifier(torch.flatten(self.avgpool(self.relu(self.norm(x))), 1))


class Inception(nn.Module):
    """Four branches side by side, joined along the channels (Szegedy et al., 2015)."""

    def __init__(self, inputs: int, each: int) -> None:
        super().__init__()
        self.branch1 = _conv(inputs, each, 1)
        self.branch2 = nn.Sequential(_conv(inputs, each // 2, 1), _conv(each // 2, each))
        self.branch3 = nn.Sequential(_conv(inputs, each // 2, 1), _conv(each // 2, each, 5))
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, 1, 1), _conv(inputs, each, 1))

    def forward(self, x: Tensor) -> Tensor:
        """X (N, inputs, H, W) → (N, 4 * each, H, W)."""
        return torch.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], 1)


class InceptionSmall(nn.Module):
    """Two Inception modules, with an auxiliary head that only training runs."""

    def __init__(self, classes: int = 10, channels: int = 1) -> None:
        super().__init__()
        self.conv1 = _conv(channels, 32)
        self.inception3 = Inception(32, 16)
        self.pool = nn.MaxPool2d(2)
        self.inception4 = Inception(64, 16)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.aux = nn.Linear(64, classes)
        self.fc = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """X (N, C, H, W) → logits (N, classes); in training also those of the auxiliary head."""
        middle = self.pool(self.inception3(self.conv1(x)))
        out = self.fc(torch.flatten(self.avgpool(self.inception4(middle)), 1))
        if self.training:
            return out, self.aux(torch.flatten(self.avgpool(middle), 1))
        return out


smallcnn = SmallCNN
sentence = Sentence
vgg_small = VGGSmall
resnet_small = ResNetSmall
densenet_small = DenseNetSmall
inception_small = InceptionSmall
