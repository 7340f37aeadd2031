"""A student: the name comes from the entry point, the network from ``build``."""

from bench.api import Student


def build(classes: int, image_size: int):
    from torch import nn

    return nn.Sequential(nn.Flatten(), nn.Linear(3 * image_size**2, 64), nn.ReLU(), nn.Linear(64, classes))


TINY_MLP = Student(title="two linear layers, 64 wide", build=build)
