"""The networks of the comparison, as PyTorch has them: torchvision's, and the small ones of our examples."""
import torch.nn as nn


def lenet():
    return nn.Sequential(
        nn.Conv2d(1, 6, 5), nn.BatchNorm2d(6), nn.Sigmoid(), nn.AvgPool2d(2, 2),
        nn.Conv2d(6, 16, 5), nn.BatchNorm2d(16), nn.Sigmoid(), nn.AvgPool2d(2, 2), nn.Flatten(),
        nn.Linear(256, 120), nn.BatchNorm1d(120), nn.Sigmoid(),
        nn.Linear(120, 84), nn.BatchNorm1d(84), nn.Sigmoid(), nn.Linear(84, 10))


def mlp():
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 256), nn.BatchNorm1d(256), nn.ReLU(),
                         nn.Linear(256, 256), nn.BatchNorm1d(256), nn.ReLU(), nn.Linear(256, 10))


def resnet18_cifar():
    import torchvision
    net = torchvision.models.resnet18(num_classes=10)
    net.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
    net.maxpool = nn.Identity()
    return net


def vision(name):
    def make():
        import torchvision
        options = {"aux_logits": False, "init_weights": False} if name == "googlenet" else {}
        return getattr(torchvision.models, name)(num_classes=10, **options)
    return make


NETS = {  # name: (make, shape of one image)
    "lenet": (lenet, (1, 28, 28)),
    "mlp": (mlp, (1, 28, 28)),
    "resnet18_cifar": (resnet18_cifar, (3, 32, 32)),
    "vgg11_bn": (vision("vgg11_bn"), (3, 64, 64)),
    "mobilenet_v2": (vision("mobilenet_v2"), (3, 96, 96)),
    "googlenet": (vision("googlenet"), (3, 96, 96)),
    "densenet121": (vision("densenet121"), (3, 64, 64)),
    "resnet50": (vision("resnet50"), (3, 112, 112)),
}
