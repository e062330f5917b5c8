import pytest
import torch
from torch import nn

from models.networks.cross_attention import CrossTaskAttention, PairAttention, from_windows, to_windows
from util.errors import ConfigError


def maps(n_tasks=3, n_images=2, channels=8, size=(20, 36), seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n_images, channels, *size, generator=generator) for _ in range(n_tasks)]


def attention(n_tasks=3, seed=0, **options):
    torch.manual_seed(seed)
    return CrossTaskAttention(n_tasks, 8, **options)


def test_windows_by_hand():
    image = torch.arange(6.0).reshape(1, 1, 2, 3)  # 0 1 2 / 3 4 5, padded by a column
    windows = to_windows(image, (2, 2))
    assert windows[0, ..., 0].tolist() == [[0, 1, 3, 4], [2, 0, 5, 0]]
    assert from_windows(windows, (2, 3), (2, 2)).equal(image)


@pytest.mark.parametrize(("size", "window"), [((20, 36), (16, 16)), ((7, 5), (3, 4)), ((16, 32), (16, 16))])
def test_windows_and_back(size, window):
    (image,) = maps(1, size=size)
    assert from_windows(to_windows(image, window), size, window).equal(image)


def test_what_a_pair_finds_by_hand():
    """One window of two features, of which one exists: all of the attention is for that."""
    torch.manual_seed(0)
    pair = PairAttention(4, window=2, n_heads=2)
    for weight in pair.perceptron[-1].parameters():
        nn.init.zeros_(weight)
    own, other = torch.randn(2, 1, 1, 2, 4)
    found = pair(own, other, (1, 2), torch.tensor([[True, False]]))
    value = pair.key_value(pair.norm(other))[..., 4:]
    expected = own + pair.projection(value[:, :, :1].expand(-1, -1, 2, -1))
    torch.testing.assert_close(found, expected)
    weights = pair.query(pair.norm(own)), pair.key_value(pair.norm(other))[..., :4]
    query, key = (each.unflatten(-1, (2, 2)).transpose(2, 3) for each in weights)  # (1, 1, heads, 2, 2)
    # Columns differ by 0, -1 or 1; the table's rows are 3 * (row + 1) + column + 1.
    table = pair.relative_position_bias_table
    bias = torch.stack([torch.stack([table[4], table[3]]), torch.stack([table[5], table[4]])]).permute(2, 0, 1)
    share = (query @ key.transpose(-1, -2) / 2**0.5 + bias).softmax(-1)
    mixed = share @ value.unflatten(-1, (2, 2)).transpose(2, 3)
    expected = own + pair.projection(mixed.transpose(2, 3).flatten(3))
    torch.testing.assert_close(pair(own, other, (1, 2)), expected)


def test_padding_changes_nothing():
    """A window that is half outside the map equals the smaller window within it."""
    whole = attention(window=16)
    small = maps(size=(8, 16))
    found = whole(small)
    padded = [to_windows(torch.cat([each, 9 + 0 * each], 2), (16, 16)) for each in small]
    exists = torch.zeros(1, 16, 16, dtype=torch.bool)
    exists[:, :8] = True
    for own in range(3):
        others = [other for other in range(3) if other != own]
        pairs = [
            whole.pairs[f"{own}_{other}"](padded[own], padded[other], (16, 16), exists.flatten(1)) for other in others
        ]
        joined = from_windows(torch.cat(pairs, -1), (16, 16), (16, 16))[:, :, :8]
        torch.testing.assert_close(found[own], small[own] + whole.joins[own](joined), rtol=1e-4, atol=1e-5)


def test_windows_are_not_shifted_and_see_no_others():
    net, one = attention(), maps(size=(32, 32))
    other = [each.clone() for each in one]
    for each in other:
        each[..., 16:, :] += 1
    before, after = net(one), net(other)
    # The norm of the joined map sees the whole of it; what the pairs found in the upper windows is the same.
    pair = net.pairs["0_1"]
    upper = [pair(*(to_windows(x, (16, 16)) for x in each[:2]), (16, 16))[:, :2] for each in (one, other)]
    assert upper[0].equal(upper[1])
    assert not before[0][..., 16:, :].equal(after[0][..., 16:, :])


def test_every_task_learns_from_every_other():
    net = attention()
    inputs = [each.requires_grad_() for each in maps()]
    for number, found in enumerate(net(inputs)):
        gradients = torch.autograd.grad(found.square().sum(), inputs, retain_graph=True)
        assert all(each.any() for each in gradients), number
    torch.stack([each.square().mean() for each in net(inputs)]).sum().backward()
    assert all(weight.grad is not None and weight.grad.any() for weight in net.parameters())


@pytest.mark.parametrize("what", ["norm", "convolution"])
def test_without_its_last_layer_it_changes_nothing(what):
    net, inputs = attention(), maps()
    assert not net(inputs)[0].equal(inputs[0])
    for join in net.joins:
        for weight in join.get_submodule("1" if what == "norm" else "0").parameters():
            nn.init.zeros_(weight)
    for found, given in zip(net(inputs), inputs, strict=True):
        assert found.equal(given)


def test_a_single_task_is_left_as_it_is():
    net = attention(1)
    assert not list(net.parameters())
    (image,) = maps(1)
    assert net([image])[0].equal(image)


def test_chosen_images_are_those_of_all():
    net, inputs = attention(), maps(n_images=4)
    rows = [(slice(0, 1), slice(2, 4)), (slice(1, 2),), ()]
    found, every = net(inputs, rows), net(inputs)
    torch.testing.assert_close(found[0], every[0][[0, 2, 3]])
    torch.testing.assert_close(found[1], every[1][1:2])
    assert found[2].shape == (0, 8, 20, 36)


def test_channels_must_divide_among_the_heads():
    with pytest.raises(ConfigError, match=r"network.channels=6.*multiple"):
        CrossTaskAttention(2, 6)
