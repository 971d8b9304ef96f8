#!/usr/bin/env python3
"""Trains LeNet with and without batch normalization in PyTorch, with the recipe and the rows of scripts/accuracy.

usage: torch_training.py [--data FOLDER] [--epochs 10] [--rows NETWORK:RATE ...] [--seeds 5] [--first 0] [--threads 2]
                         [--initial FOLDER]
Prints a line a run: loss and training accuracy over the last epoch, test accuracy after it. --initial writes the initial
weights, <network>-<seed>.safetensors, for `train --load`. Needs torch and numpy.
"""
import argparse
import gzip
import json
import pathlib
import struct

import numpy as np
import torch
import torch.nn as nn

ROWS = [("lenet", 1.0), ("lenet", 0.1), ("lenet_plain", 0.9), ("lenet_plain", 0.1)]
BATCH = 256


def load(folder, part):
    """Images [n, 1, 28, 28] in 0..1 and labels [n] of "train" or "t10k"."""
    def read(name, offset):
        return np.frombuffer(gzip.open(folder / name).read(), np.uint8, offset=offset)
    images = read(f"{part}-images-idx3-ubyte.gz", 16).reshape(-1, 1, 28, 28)
    return torch.tensor(images).float() / 255, torch.tensor(read(f"{part}-labels-idx1-ubyte.gz", 8)).long()


def network(name):
    def norm(layer, channels):
        return [layer(channels)] if name == "lenet" else []
    net = nn.Sequential(
        nn.Conv2d(1, 6, 5), *norm(nn.BatchNorm2d, 6), nn.Sigmoid(), nn.AvgPool2d(2, 2),
        nn.Conv2d(6, 16, 5), *norm(nn.BatchNorm2d, 16), nn.Sigmoid(), nn.AvgPool2d(2, 2), nn.Flatten(),
        nn.Linear(256, 120), *norm(nn.BatchNorm1d, 120), nn.Sigmoid(),
        nn.Linear(120, 84), *norm(nn.BatchNorm1d, 84), nn.Sigmoid(), nn.Linear(84, 10))
    for layer in net:
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            nn.init.xavier_uniform_(layer.weight)
    return net


def save(net, path):
    """As safetensors, float32."""
    header, values = {}, b""
    for name, tensor in net.state_dict().items():
        if tensor.dtype == torch.float32:
            data = tensor.numpy().tobytes()
            offsets = [len(values), len(values) + len(data)]
            header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": offsets}
            values += data
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + values)


def train(name, rate, seed, epochs, data, initial):
    (images, labels), (test_images, test_labels) = data
    torch.manual_seed(seed)
    net = network(name)
    if initial:
        initial.mkdir(parents=True, exist_ok=True)
        save(net, initial / f"{name}-{seed}.safetensors")
    optimizer = torch.optim.SGD(net.parameters(), lr=rate)
    cross_entropy = nn.CrossEntropyLoss()
    loss_sum, right = 0.0, 0
    for _ in range(epochs):
        net.train()
        loss_sum, right = 0.0, 0
        for batch in torch.randperm(len(labels)).split(BATCH):
            optimizer.zero_grad()
            logits = net(images[batch])
            loss = cross_entropy(logits, labels[batch])
            loss.backward()
            optimizer.step()
            loss_sum += loss.item() * len(batch)
            right += (logits.argmax(1) == labels[batch]).sum().item()
    net.eval()
    with torch.no_grad():
        test = (net(test_images).argmax(1) == test_labels).float().mean().item()
    return loss_sum / len(labels), right / len(labels), test


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, default=pathlib.Path("/usr/share/datasets/fashion-mnist"))
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--rows", nargs="+", default=ROWS, help="as lenet_plain:0.9",
                        type=lambda row: (row.split(":")[0], float(row.split(":")[1])))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--initial", type=pathlib.Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    data = load(options.data, "train"), load(options.data, "t10k")
    print(f"{'network':22} {'rate':>5} {'seed':>5} {'loss':>8} {'train':>8} {'test':>8}")
    for name, rate in options.rows:
        for seed in range(options.first, options.first + options.seeds):
            row = train(name, rate, seed, options.epochs, data, options.initial)
            print(f"{name:22} {rate:5} {seed:5} " + " ".join(f"{value:8.4f}" for value in row), flush=True)


if __name__ == "__main__":
    main()
