"""Applying methods: the memory order of their weights."""

from dataclasses import asdict

import pytest
import torch

from models import build_method, method_class
from models.prediction.segmenter import Segmenter


@pytest.mark.parametrize("is_training", [True, False])
def test_weights_take_the_faster_order_unless_they_are_being_trained(is_training):
    config = method_class("alpnet").Config(modelname="resnet18", encoder_weights="none")
    method = build_method({"method": "alpnet"} | asdict(config)).train(is_training)
    Segmenter(method, torch.device("cpu"))
    weight = method.get_parameter("encoder.backbone.conv1.weight")
    assert weight.is_contiguous(memory_format=torch.channels_last) != is_training
    assert method.training == is_training
