import torch
import torch.nn.functional as F

from models.networks.frozen import call_frozen


def networks():
    torch.manual_seed(0)
    return torch.nn.Conv2d(1, 2, 3), torch.nn.Sequential(torch.nn.Conv2d(2, 1, 3), torch.nn.BatchNorm2d(1))


def gradients(*modules):
    return [p.grad for module in modules for p in module.parameters()]


def terms(generator, discriminator, image):
    """The adversarial term of the generator, and the loss of the discriminator."""
    maps = generator(image).sigmoid()
    fools = F.softplus(-call_frozen(discriminator, maps)).mean()
    detects = F.softplus(discriminator(maps.detach())).mean()
    return fools, detects


def test_the_output_is_that_of_the_network():
    _, discriminator = networks()
    maps = torch.rand(2, 2, 8, 8)
    assert torch.equal(call_frozen(discriminator.eval(), maps), discriminator(maps))


def test_each_term_reaches_its_own_network_alone():
    generator, discriminator = networks()
    image = torch.rand(2, 1, 12, 12)
    fools, _ = terms(generator, discriminator, image)
    fools.backward()
    assert all(gradient is not None and gradient.any() for gradient in gradients(generator))
    assert gradients(discriminator) == [None] * 4
    generator.zero_grad()
    _, detects = terms(generator, discriminator, image)
    detects.backward()
    assert gradients(generator) == [None] * 2
    assert all(gradient is not None for gradient in gradients(discriminator))


def test_one_backward_pass_of_the_sum_gives_both_gradients():
    generator, discriminator = networks()
    image = torch.rand(2, 1, 12, 12)
    expected = []
    for which, network in enumerate((generator, discriminator)):
        terms(generator, discriminator, image)[which].backward()
        expected += gradients(network)
        generator.zero_grad()
        discriminator.zero_grad()
    torch.stack(terms(generator, discriminator, image)).sum().backward()
    for found, wanted in zip(gradients(generator, discriminator), expected, strict=True):
        torch.testing.assert_close(found, wanted)
