"""torchvision's ResNet-18 without its classifier: what SwiftNet and BiSeNet read."""
from torchvision.models.resnet import BasicBlock, ResNet


class ResNet18(ResNet):
    def __init__(self):
        super().__init__(BasicBlock, [2, 2, 2, 2])
        del self.avgpool, self.fc

    def maps(self, x, seen):
        """The four stages' maps, behind their ReLU, at strides 4, 8, 16 and 32."""
        seen["stem"] = x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        maps = []
        for i, stage in enumerate([self.layer1, self.layer2, self.layer3, self.layer4], 1):
            seen[f"layer{i}"] = x = stage(x)
            maps.append(x)
        return maps
