import pytest
import timm
import torch
from torch import nn

from models.networks.pyramid import PyramidEncoder, pad_to_stride
from models.networks.rows import select_rows
from models.networks.upernet import MultiHeadUPerNet, UPerConfig
from util.errors import CheckpointError, ConfigError
from util.schema import build

TASKS = {"vessel": 1, "lesion": 4, "disc.cup": 2}
SMALL = {"encoder": "test_convnext", "in_channels": 1, "channels": 8, "dropout": 0.0, "drop_path": 0.0}
ROWS = [(slice(0, 2),), (slice(0, 1), slice(3, 4)), (slice(0, 4),)]


def network(seed=0, config=SMALL, **options):
    torch.manual_seed(seed)
    return MultiHeadUPerNet(build(UPerConfig, config), TASKS, **options)


def images(n_images=4, size=(40, 72), channels=1):
    return torch.rand(n_images, channels, *size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("attention", [False, True])
@pytest.mark.parametrize("encoder", ["test_convnext", "test_efficientnet", "resnet10t"])
def test_logits_have_the_size_of_the_images(encoder, attention):
    net = network(config=SMALL | {"encoder": encoder}, attention=attention)
    for size in ((32, 32), (40, 52), (33, 65)):
        found = net(images(2, size))
        assert [tuple(each.shape) for each in found.main] == [(2, k, *size) for k in TASKS.values()]
        assert [each.shape for each in found.auxiliary] == [each.shape for each in found.main]
    assert net.eval()(images(2)).auxiliary == ()


def test_every_weight_gets_a_gradient():
    net = network(attention=True, task_dropout=0.1)
    found = net(images(8))
    torch.stack([each.square().mean() for each in (*found.main, *found.auxiliary)]).sum().backward()
    assert all(weight.grad is not None and weight.grad.any() for weight in net.parameters())


@pytest.mark.parametrize("attention", [False, True])
def test_routing_equals_computing_everything(attention):
    """Values and gradients, with several images of each data set."""
    routed, whole = network(attention=attention), network(attention=attention)
    found = routed(images(), ROWS)
    every = whole(images()).map(lambda task, maps: select_rows(maps, ROWS[task]))
    for kind in ("main", "auxiliary"):
        for one, other in zip(getattr(found, kind), getattr(every, kind), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    for logits in (found, every):
        torch.stack([each.square().sum() for each in (*logits.main, *logits.auxiliary)]).sum().backward()
    for (name, one), other in zip(routed.named_parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-3, atol=1e-4, msg=name)


def test_heads_without_images_have_no_part_in_it():
    net = network()
    found = net(images(), [(slice(0, 4),), (), ()])
    assert [len(each) for each in (*found.main, *found.auxiliary)] == [4, 0, 0, 4, 0, 0]
    torch.stack([each.square().sum() for each in (*found.main, *found.auxiliary)]).sum().backward()
    for name, weight in net.named_parameters():
        if "task_vessel" not in name and "encoder" not in name:
            assert weight.grad is None or not weight.grad.any(), name


def test_heads_are_independent_and_normalise_each_image_alone():
    net, image = network(), images()
    before = net(image)
    with torch.no_grad():
        for weight in net.heads["task_vessel"].parameters():
            weight.add_(1)
    after = net(image)
    assert not before.main[0].equal(after.main[0])
    assert before.main[1].equal(after.main[1])
    torch.testing.assert_close(net(image[:1]).main[1], before.main[1][:1], rtol=1e-4, atol=1e-5)


def test_padding_repeats_the_border_and_is_cut_off():
    image = images(1, (33, 64))
    padded = pad_to_stride(image)
    assert padded.shape == (1, 1, 64, 64)
    assert padded[..., 33:, :].equal(image[..., 32:, :].expand(-1, -1, 31, -1))
    net = network().eval()
    assert net(image).main[0].equal(net(padded).main[0][..., :33, :])
    assert pad_to_stride(padded) is padded


def test_attention_zeroed_is_the_network_without():
    with_it, without = network(attention=True), network(seed=1)
    without.load_state_dict({k: v for k, v in with_it.state_dict().items() if not k.startswith("attention.")})
    assert not with_it(images()).main[0].equal(without(images()).main[0])
    assert with_it.attention is not None
    for join in with_it.attention.joins:
        for weight in join[1].parameters():  # type: ignore[index]
            nn.init.zeros_(weight)
    for one, other in zip(with_it(images()).main, without(images()).main, strict=True):
        assert one.equal(other)


def test_dropout_of_tasks_drops_whole_maps_of_images():
    net = network(task_dropout=0.5)
    torch.manual_seed(0)
    maps = net._drop(torch.ones(64, 8, 3, 3))
    assert {tuple(each.unique().tolist()) for each in maps} == {(0.0,), (2.0,)}
    assert net.eval()._drop(maps) is maps


def test_the_published_network():
    torch.manual_seed(0)
    net = MultiHeadUPerNet(UPerConfig(), TASKS, attention=True)
    assert net.encoder.channels == (96, 192, 384, 768)
    blocks = [m for m in net.encoder.modules() if type(m).__name__ == "SwinTransformerBlock"]
    assert [block.window_size for block in blocks] == [(7, 7)] * 12
    assert [block.shift_size for block in blocks] == [(0, 0), (3, 3)] * 6
    rates = [getattr(block.drop_path2, "drop_prob", 0.0) for block in blocks]
    assert rates[0] == 0
    assert rates[-1] == pytest.approx(0.3)
    assert net.attention is not None
    assert len(net.attention.pairs) == 6
    found = net.eval()(images(1, (64, 64), 3))
    assert [tuple(each.shape) for each in found.main] == [(1, k, 64, 64) for k in (1, 4, 2)]
    assert [tuple(f.shape[1:]) for f in net.encoder(images(1, (64, 96), 3))] == [
        (96, 16, 24), (192, 8, 12), (384, 4, 6), (768, 2, 3)
    ]  # fmt: skip


@pytest.mark.parametrize("encoder", ["swin_tiny_patch4_window7_224", "test_convnext"])
def test_weights_of_the_whole_model_fit_its_stages(tmp_path, encoder):
    torch.manual_seed(2)
    whole = timm.create_model(encoder).state_dict()
    torch.save(whole, tmp_path / "weights.pth")
    found = PyramidEncoder(encoder, 1, 0.1, str(tmp_path / "weights.pth")).features.state_dict()
    flat = {key.replace(".", "_"): value for key, value in whole.items()}
    first, *others = found
    assert found[first].equal(flat[first.replace(".", "_")].sum(1, keepdim=True))
    assert all(found[key].equal(flat[key.replace(".", "_")]) for key in others)
    with pytest.raises(CheckpointError, match="not the backbone of resnet10t"):
        PyramidEncoder("resnet10t", 1, 0.0, str(tmp_path / "weights.pth"))


@pytest.mark.parametrize(
    ("encoder", "drop_path", "reason"),
    [("swin_tin", 0.0, "no such encoder"), ("vgg11", 0.3, "drop_path=0"), ("test_vit", 0.0, "expected 4, 8, 16, 32")],
)
def test_unsuitable_encoders_are_refused(encoder, drop_path, reason):
    with pytest.raises(ConfigError, match=reason):
        PyramidEncoder(encoder, 3, drop_path)


def test_sizes_are_checked():
    with pytest.raises(ConfigError, match=r"network\.drop_path=1\.0"):
        UPerConfig(drop_path=1.0)
