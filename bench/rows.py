"""What is measured: networks, the batch each trains with, and the rows of the table with their targets."""
import dataclasses

TRAIN_BATCH = {"lenet": 256, "mlp": 256, "resnet18_cifar": 64, "vgg11_bn": 32, "mobilenet_v2": 32, "googlenet": 32,
               "densenet121": 32, "resnet50": 16}
NETS = list(TRAIN_BATCH)

TORCH = ["eager nchw", "eager nhwc", "compile nchw", "compile nhwc"]  # nhwc: channels_last
ONNX = ["onnxruntime", "openvino"]


@dataclasses.dataclass(frozen=True)
class Row:
    net: str
    mode: str  # train, infer
    batch: int
    threads: int
    peers: tuple
    target: float = 0  # the fastest peer's time over ours must be at least this; 0: no target
    moonshot: float = 0

    @property
    def name(self):
        return f"{self.net}/{self.mode}/{self.batch}/{self.threads}"

    @property
    def work(self):
        step = "train step" if self.mode == "train" else "inference"
        return f"{self.net} {step}, batch {self.batch}, {self.threads} thread{'s' * (self.threads > 1)}"


def train(net, peers, target, moonshot=0):
    return Row(net, "train", TRAIN_BATCH[net], 2, tuple(peers), target, moonshot)


def infer(net, batch, peers, target):
    return Row(net, "infer", batch, 2, tuple(peers), target)


TARGETS = [
    train("lenet", TORCH, 5, 6.5),
    infer("lenet", 256, ["onnxruntime"], 1.8),
    infer("lenet", 1, ["onnxruntime"], 4),
    train("mlp", ["compile nchw"], 1.3),
    train("resnet18_cifar", ["compile nhwc"], 2, 2.5),
    train("vgg11_bn", ["eager nhwc"], 1.7),
    train("densenet121", ["eager nhwc"], 1.7),
    train("googlenet", ["eager nhwc"], 1.7),
    train("resnet50", ["eager nhwc"], 1.7),
    train("mobilenet_v2", ["compile nhwc"], 2),
    infer("resnet18_cifar", 64, ONNX, 2),
    infer("resnet18_cifar", 1, ONNX, 1.6),
    infer("mobilenet_v2", 32, ONNX, 1.3),
    infer("mobilenet_v2", 1, ONNX, 1.4),
    infer("resnet50", 16, ONNX, 1.3),
    infer("resnet50", 1, ONNX, 1.3),
]


def every_row():
    """Each network's train step and inference at several batches, one and two threads, beside every peer; rows of
    TARGETS keep their targets."""
    rows = {row.name: row for row in TARGETS}
    result = []
    for net, batch in TRAIN_BATCH.items():
        for threads in (1, 2):
            result.append(Row(net, "train", batch, threads, tuple(TORCH)))
            for n in sorted({1, 16, 256, batch}):
                result.append(Row(net, "infer", n, threads, tuple(TORCH + ONNX)))
    return [dataclasses.replace(row, target=rows[row.name].target, moonshot=rows[row.name].moonshot)
            if row.name in rows else row for row in result]
