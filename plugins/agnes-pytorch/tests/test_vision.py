import pytest
import torch
import torch.nn.functional as F
from agnes_pytorch import architectures, resnet, vgg

from agnes.network import Network

COUNTS = {  # name -> parameters at 1000 classes as torchvision's documentation has them, entries of the state dict
    "resnet18": (11_689_512, 122),
    "resnet34": (21_797_672, 218),
    "resnet50": (25_557_032, 320),
    "vgg11": (132_863_336, 22),
    "vgg11_bn": (132_868_840, 62),
    "vgg16": (138_357_544, 32),
    "vgg16_bn": (138_365_992, 97),
}
KEYS = {  # a few of torchvision's, with their shapes at 1000 classes
    "resnet18": {
        "conv1.weight": (64, 3, 7, 7),
        "bn1.num_batches_tracked": (),
        "layer1.0.conv1.weight": (64, 64, 3, 3),
        "layer2.0.downsample.0.weight": (128, 64, 1, 1),
        "layer4.1.bn2.running_var": (512,),
        "fc.weight": (1000, 512),
    },
    "resnet34": {"layer3.5.conv2.weight": (256, 256, 3, 3), "layer4.0.downsample.1.bias": (512,)},
    "resnet50": {
        "layer1.0.downsample.0.weight": (256, 64, 1, 1),
        "layer2.0.conv1.weight": (128, 256, 1, 1),
        "layer3.5.conv3.weight": (1024, 256, 1, 1),
        "layer4.2.bn3.running_mean": (2048,),
        "fc.bias": (1000,),
    },
    "vgg11": {
        "features.18.weight": (512, 512, 3, 3),
        "classifier.0.weight": (4096, 25088),
        "classifier.6.bias": (1000,),
    },
    "vgg11_bn": {"features.25.weight": (512, 512, 3, 3), "features.26.running_mean": (512,)},
    "vgg16": {"features.28.weight": (512, 512, 3, 3), "classifier.3.weight": (4096, 4096)},
    "vgg16_bn": {"features.40.weight": (512, 512, 3, 3), "features.41.running_var": (512,)},
}


def blank(name, classes):
    return architectures.named(name).blank(classes)


@pytest.mark.parametrize("name", COUNTS)
def test_parameters_and_keys_are_those_of_torchvision(name):
    module = blank(name, 1000)
    shapes = architectures.shapes_in(module)
    assert (sum(p.numel() for p in module.parameters()), len(shapes)) == COUNTS[name]
    assert {key: shapes.get(key) for key in KEYS[name]} == KEYS[name]


def test_parameters_at_43_classes_are_those_of_the_papers():
    assert sum(p.numel() for p in blank("resnet18", 43).parameters()) == 11_198_571
    assert sum(p.numel() for p in blank("vgg11_bn", 43).parameters()) == 128_948_011


@pytest.mark.parametrize("name", COUNTS)
def test_each_is_guessed_from_its_weights_alone(name):
    shapes = architectures.shapes_in(blank(name, 43))
    assert architectures.fitting(shapes, "m.pt").name == name
    assert architectures.named(name).class_count(shapes) == 43


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize("size", [32, 224])
def test_images_of_32_and_of_224_pixels_are_taken(name, size):
    module = blank(name, 10).eval()
    assert module.input_shape == (3, 224, 224)
    with torch.device("meta"):
        assert module(torch.empty(2, 3, size, size)).shape == (2, 10)


def filled(make, *arguments):
    """A module with weights at random, its statistics too."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = make(*arguments).eval()
        for key, value in module.state_dict().items():
            if "running" in key:
                value.copy_(torch.rand_like(value) + 0.5)
    return module


def norm(state, name, maps):
    part = [state[f"{name}.{each}"] for each in ("running_mean", "running_var", "weight", "bias")]
    return F.batch_norm(maps, *part)


def residual(state, images):
    """A ResNet written out by its keys alone."""
    maps = F.conv2d(images, state["conv1.weight"], stride=2, padding=3)
    maps = F.max_pool2d(F.relu(norm(state, "bn1", maps)), 3, 2, 1)
    blocks = dict.fromkeys(key.rpartition(".conv")[0] for key in state if ".conv" in key)
    for block in blocks:
        inner, group, first = maps, int(block[5]), block.endswith(".0")
        count = 3 if f"{block}.conv3.weight" in state else 2
        strided = 1 if count == 2 else 2  # which convolution takes the stride
        for i in range(1, count + 1):
            weight = state[f"{block}.conv{i}.weight"]
            stride = 2 if i == strided and first and group > 1 else 1
            inner = norm(state, f"{block}.bn{i}", F.conv2d(inner, weight, None, stride, weight.shape[-1] // 2))
            inner = F.relu(inner) if i < count else inner
        if f"{block}.downsample.0.weight" in state:
            weight = state[f"{block}.downsample.0.weight"]
            maps = norm(state, f"{block}.downsample.1", F.conv2d(maps, weight, None, 2 if group > 1 else 1))
        maps = F.relu(maps + inner)
    return F.linear(maps.mean((2, 3)), state["fc.weight"], state["fc.bias"])


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_a_resnet_computes_what_its_keys_say(name):
    module = filled(getattr(resnet, name), 7)
    images = torch.rand(2, 3, 40, 36, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = residual(module.state_dict(), images)
        assert torch.allclose(module(images), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("batch_norm", [False, True])
def test_a_vgg_computes_what_its_keys_say(batch_norm):
    module = filled(vgg.VGG, ((4,), (6, 6)), 5, batch_norm)
    state, maps = module.state_dict(), torch.rand(2, 3, 28, 28, generator=torch.Generator().manual_seed(1))
    images, place = maps, 0
    for group in ((4,), (6, 6)):
        for _ in group:
            maps = F.conv2d(maps, state[f"features.{place}.weight"], state[f"features.{place}.bias"], padding=1)
            maps = F.relu(norm(state, f"features.{place + 1}", maps) if batch_norm else maps)
            place += 3 if batch_norm else 2
        maps = F.max_pool2d(maps, 2)
        place += 1
    values = maps.flatten(1)  # 28 pixels halved twice are the 7 that are pooled to
    for i in (0, 3, 6):
        values = F.linear(values, state[f"classifier.{i}.weight"], state[f"classifier.{i}.bias"])
        values = values if i == 6 else F.relu(values)
    with torch.no_grad():
        assert torch.allclose(module(images), values, atol=1e-5)


def test_every_residual_block_is_seen_as_layers():
    network = Network.of(resnet.resnet18(5).eval(), (3, 32, 32))
    assert len(network.layers) == 20  # one before the blocks, two in each of eight, three shortcuts
    assert network.piecewise_linear
