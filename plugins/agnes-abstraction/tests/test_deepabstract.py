"""deepabstract: convolutions turned into fully connected layers, and layers merged."""

from __future__ import annotations

import pytest
import torch
from agnes_abstraction.chain import Chain, NoChain, obstacle
from agnes_abstraction.deepabstract import DeepAbstract
from agnes_abstraction.merging import Merged, TooLarge, abstract_network, alone
from agnes_abstraction.sparse import SparseLinear
from torch import nn

from agnes.backend import Backend
from agnes.errors import AgnesError, UsageError
from agnes.layers import Layer
from agnes.measuring import accuracy
from agnes.network import Network
from agnes.samples import Samples
from agnes.selection import Chosen, Selection
from agnes.stages import Stages
from agnes.testing import tiny_network
from agnes.testing.networks import random_network

BACKEND = Backend.choose("cpu", memory=1 << 28)


def settled(module: nn.Module, seed: int = 0) -> nn.Module:
    """Weights and statistics as training leaves them."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, (nn.BatchNorm2d, nn.BatchNorm1d)):
                for tensor in (part.weight, part.bias, part.running_mean):
                    tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.3 + 0.2)
                part.running_var.copy_(torch.rand(part.running_var.shape, generator=generator) + 0.5)
            elif isinstance(part, (nn.Conv2d, nn.Linear)):
                part.weight.copy_(torch.randn(part.weight.shape, generator=generator) / part.weight[0].numel() ** 0.5)
                if part.bias is not None:
                    part.bias.copy_(torch.randn(part.bias.shape, generator=generator) * 0.1)
            elif isinstance(part, nn.PReLU):
                part.weight.copy_(torch.rand(part.weight.shape, generator=generator))
    return module.eval()


def averaging() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.AvgPool2d(3, 2, padding=1, ceil_mode=True),
        nn.Conv2d(6, 8, 3, padding=2, dilation=2, groups=2),
        nn.LeakyReLU(0.1),
        nn.BatchNorm2d(8),
        nn.AdaptiveAvgPool2d(3),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(72, 10),
        nn.ReLU6(),
        nn.Linear(10, 4),
    )


def unusual() -> nn.Module:
    return nn.Sequential(
        nn.ZeroPad2d((1, 0, 2, 1)),
        nn.Conv2d(3, 4, 3, stride=2, padding=1, padding_mode="reflect"),
        nn.PReLU(4),
        nn.Conv2d(4, 5, 1),
        nn.Conv2d(5, 4, 3),
        nn.Tanh(),
        nn.ConvTranspose2d(4, 3, 2, stride=2),
        nn.SiLU(),
        nn.Flatten(),
        nn.Linear(360, 4),
    )


def dense() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(300, 40), nn.ReLU(), nn.BatchNorm1d(40), nn.Linear(40, 30), nn.ReLU(), nn.Linear(30, 4)
    )


def as_fully_connected(network: Network, backend: Backend = BACKEND) -> Network:
    every = {layer.name: alone(layer, network.device) for layer in network.layers}
    return abstract_network(Chain(network), every, backend)


def images(network: Network, count: int = 40, seed: int = 5) -> Samples:
    """Noise, each image called what the network calls it."""
    pixels = torch.rand((count, *network.input_shape), generator=torch.Generator().manual_seed(seed))
    return Samples(pixels, network(pixels).argmax(1))


def balanced(module: nn.Module, shape: tuple[int, int, int], **preprocessing) -> Network:
    """Classes that noise falls into about equally often."""
    network = Network.of(module, shape, **preprocessing)
    logits = network(torch.rand((200, *shape), generator=torch.Generator().manual_seed(1)))
    with torch.no_grad():
        module[-1].weight /= logits.std(0)[:, None]
        module[-1].bias.copy_((module[-1].bias - logits.mean(0)) / logits.std(0))
    return Network.of(module, shape, **preprocessing)


CHAINS = {
    "averaging": balanced(settled(averaging()), (3, 10, 10)),
    "unusual": balanced(settled(unusual()), (3, 13, 13)),
    "dense, pixels of 255": balanced(
        settled(dense()), (3, 10, 10), mean=(120.0, 110.0, 90.0), std=(60.0,), scale=255.0, layout="NHWC"
    ),
    "batch_norm": tiny_network("batch_norm"),
    "fully_connected": tiny_network("fully_connected"),
    "average_pooled": tiny_network("average_pooled"),
}


@pytest.mark.parametrize("name", CHAINS)
def test_as_fully_connected_layers_a_network_computes_the_same(name: str):
    network = CHAINS[name]
    made, pixels = as_fully_connected(network), images(network).images
    assert torch.allclose(made(pixels), network(pixels), atol=1e-4, rtol=1e-4)
    theirs, ours = network.read(pixels), made.read(pixels)
    assert list(theirs) == list(ours)
    for layer in network.layers:
        assert torch.allclose(ours[layer.name], theirs[layer.name].flatten(1), atol=1e-4, rtol=1e-4)
        assert made.layer(layer.name).shape == (layer.neurons,)
        assert made.layer(layer.name).kind == "linear"


def test_the_weights_of_a_convolution_as_a_fully_connected_layer_are_its_kernels_shifted():
    convolution = settled(nn.Conv2d(2, 3, 3, padding=1, bias=False))
    module = nn.Sequential(convolution, nn.ReLU(), nn.Flatten(), nn.Linear(48, 2))
    made = as_fully_connected(Network.of(settled(module), (2, 4, 4)))
    weight = made.module.get_submodule("0").weight.reshape(3, 4, 4, 2, 4, 4)
    assert torch.allclose(weight[1, 2, 2, 0, 1:, 1:], convolution.weight[1, 0], atol=1e-6)
    assert torch.allclose(weight[2, 0, 0, 1, :2, :2], convolution.weight[2, 1, 1:, 1:], atol=1e-6)
    assert int((weight != 0).sum()) == 3 * 2 * (4 * 3 - 2) ** 2


def test_large_convolutions_keep_only_the_weights_that_are_not_zero():
    module = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(), nn.Flatten(),
        nn.Linear(1024, 3),
    )  # fmt: skip
    network = Network.of(settled(module), (3, 16, 16))
    made, pixels = as_fully_connected(network), images(network).images
    sparse = made.module.get_submodule("2")
    assert isinstance(sparse, SparseLinear)
    assert sparse.values.numel() == 4 * 4 * (16 * 3 - 2) ** 2
    assert sparse.weight.shape == (1024, 1024)
    assert isinstance(made.module.get_submodule("agnes_logits"), nn.Linear)
    assert torch.allclose(made(pixels), network(pixels), atol=1e-4)
    assert torch.allclose(made.copy()(pixels), network(pixels), atol=1e-4)


def three_neurons() -> Network:
    """Neurons 0 and 2 answer alike; 1 does not."""
    module = nn.Sequential(nn.Flatten(), nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
    with torch.no_grad():
        module[1].weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.01, 0.0]]))
        module[1].bias.copy_(torch.tensor([0.1, 0.2, 0.1]))
        module[3].weight.copy_(torch.tensor([[1.0, 2.0, 4.0], [8.0, 16.0, 32.0]]))
        module[3].bias.copy_(torch.tensor([0.5, -0.5]))
    return Network.of(module.eval(), (2, 1, 1))


def test_a_representative_keeps_what_comes_in_and_sends_out_the_sum_of_its_cluster():
    clusters = Merged(torch.tensor([0, 1, 0]), torch.tensor([2, 1]))
    made = abstract_network(Chain(three_neurons()), {"1": clusters}, BACKEND)
    first, last = made.module.get_submodule("1"), made.module.get_submodule("agnes_logits")
    assert torch.allclose(first.weight, torch.tensor([[1.01, 0.0], [0.0, 2.0]]))
    assert torch.allclose(first.bias, torch.tensor([0.1, 0.2]))
    assert torch.allclose(last.weight, torch.tensor([[5.0, 2.0], [40.0, 16.0]]))
    assert torch.allclose(last.bias, torch.tensor([0.5, -0.5]))


def test_neurons_that_answer_alike_are_merged_and_named():
    network = three_neurons()
    found = DeepAbstract(precision=0).abstract(network=network, samples=images(network), backend=BACKEND)
    made = found.abstract_network
    assert made is not None
    assert made.layers[0].shape == (len(found.sources["1"]),)
    assert int(found.clusters["1"][0]) == int(found.clusters["1"][2])
    for neuron, source in enumerate(found.sources["1"].tolist()):
        assert int(found.clusters["1"][source]) == neuron
        assert found.positions["1"][source]
    assert int(found.positions["1"].sum()) == len(found.sources["1"])


def test_of_neurons_that_no_image_activates_the_one_with_the_largest_outgoing_weights_stands_for_all():
    module = settled(nn.Sequential(nn.Flatten(), nn.Linear(12, 30), nn.ReLU(), nn.Linear(30, 4)))
    with torch.no_grad():
        module[1].weight[10:20] = 0
        module[1].bias[10:20] = -1.0
        module[3].weight[2, 16] = 5.0
    network = balanced(module, (3, 2, 2))
    found = DeepAbstract(accuracy_drop=0.0).abstract(network=network, samples=images(network), backend=BACKEND)
    assert len(found.clusters["1"][10:20].unique()) == 1
    assert found.positions["1"][16]
    assert not found.positions["1"][[10, 11, 12, 13, 14, 15, 17, 18, 19]].any()
    assert found.abstract_network is not None
    merged = found.abstract_network.module.get_submodule("agnes_logits").weight[:, int(found.clusters["1"][16])]
    assert torch.allclose(merged, module[3].weight[:, found.clusters["1"] == found.clusters["1"][16]].sum(1), atol=1e-5)


@pytest.mark.parametrize("name", CHAINS)
def test_with_as_many_clusters_as_neurons_it_is_the_identity(name: str):
    network = CHAINS[name]
    method = DeepAbstract(accuracy_drop=0.0, precision=1.0)  # no number but that of the neurons is tried
    found = method.abstract(network=network, samples=images(network), backend=BACKEND)
    assert found.abstract_network is not None
    for layer in network.layers:
        assert found.sources[layer.name].tolist() == list(range(layer.neurons))
        assert found.clusters[layer.name].flatten().tolist() == list(range(layer.neurons))
        assert found.positions[layer.name].all()
    pixels = images(network, seed=9).images
    assert torch.allclose(found.abstract_network(pixels), network(pixels), atol=1e-4, rtol=1e-4)
    assert found.notes[0].startswith("abstraction rate 0%")


def merged_by_hand(network: Network, found, pixels: torch.Tensor) -> torch.Tensor:
    """The network with each neuron at its representative's value, layer after layer."""
    names = {layer.node: layer for layer in network.layers}

    class Spreading(torch.fx.Interpreter):
        def run_node(self, n: torch.fx.Node):
            value = super().run_node(n)
            if n.name not in names:
                return value
            layer: Layer = names[n.name]
            standing = found.sources[layer.name][found.clusters[layer.name].flatten()]
            return value.flatten(1)[:, standing].reshape(value.shape)

    return Spreading(network.module).run(pixels)


@pytest.mark.parametrize("name", CHAINS)
def test_the_abstract_network_computes_what_the_merged_layers_do(name: str):
    network = CHAINS[name]
    method = DeepAbstract(accuracy_drop=0.4)
    found = method.abstract(network=network, samples=images(network), backend=BACKEND)
    assert found.abstract_network is not None
    assert any(len(found.sources[layer.name]) < layer.neurons for layer in network.layers)
    pixels = images(network, seed=9).images
    with torch.no_grad():
        assert torch.allclose(found.abstract_network(pixels), merged_by_hand(network, found, pixels), atol=1e-4)


@pytest.mark.parametrize("drop", [0.0, 0.05, 0.3])
def test_accuracy_falls_by_no_more_than_was_allowed(drop: float):
    network = CHAINS["dense, pixels of 255"]
    samples = images(network, 60).with_test(images(network, 200, seed=6))
    found = DeepAbstract(accuracy_drop=drop).abstract(network=network, samples=samples, backend=BACKEND)
    assert found.abstract_network is not None
    measured, count = accuracy(found.abstract_network, samples, BACKEND)
    assert count == 200
    assert measured is not None
    assert measured >= 1 - drop - 1e-6
    assert found.notes[1].endswith("on 200 images")
    assert f"{measured:.1%} after" in found.notes[1]


def test_the_first_layers_may_spend_the_whole_drop_where_it_is_not_shared():
    network = CHAINS["dense, pixels of 255"]
    left = {}
    for shared in (True, False):
        method = DeepAbstract(accuracy_drop=0.2, shared=shared, precision=0)
        found = method.abstract(network=network, samples=images(network, 200), backend=BACKEND)
        assert found.abstract_network is not None
        kept, _ = accuracy(found.abstract_network, images(network, 200), BACKEND)
        assert kept is not None
        assert kept >= 0.8
        left[shared] = [len(sources) for sources in found.sources.values()]
    assert left[False][0] < left[True][0]


def test_more_may_be_merged_where_more_accuracy_may_be_lost():
    network = CHAINS["averaging"]
    left = []
    for drop in (0.0, 0.1, 0.6):
        found = DeepAbstract(accuracy_drop=drop).abstract(network=network, samples=images(network), backend=BACKEND)
        left.append(sum(len(sources) for sources in found.sources.values()))
    assert left[0] > left[1] > left[2]


def test_without_labels_the_networks_own_predictions_must_hold():
    network = CHAINS["fully_connected"]
    samples = images(network)
    unlabelled = DeepAbstract().abstract(network=network, samples=Samples(samples.images), backend=BACKEND)
    assert unlabelled.notes[1].startswith("agreement with the network 100.0% before")
    assert unlabelled.abstract_network is not None
    agree = (unlabelled.abstract_network(samples.images).argmax(1) == samples.labels).float().mean()
    assert float(agree) >= 0.95


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("plain", "max_pool"),
        ("residual", "joins or parts ways"),
        ("dense", "joins or parts ways"),
        ("max_pooled", "max_pool"),
    ],
)
def test_what_forbids_merging_is_named(name: str, reason: str):
    network = tiny_network(name)
    assert DeepAbstract().suits(network) is None
    assert reason in obstacle(network)
    with pytest.raises(AgnesError, match=reason):
        DeepAbstract().abstract(network=network, samples=images(network), backend=BACKEND)
    with pytest.raises(NoChain):
        Chain(network)


@pytest.mark.parametrize("name", ["plain", "residual"])
def test_named_on_a_network_that_forbids_merging_it_is_skipped_with_the_reason(name: str):
    network = tiny_network(name)
    chosen = Chosen("deepabstract", "abstraction", "agnes-abstraction", "0", DeepAbstract())
    stages = Stages(Selection((chosen,)), BACKEND, None, images(network))
    assert stages.abstract(network) == ()
    (run,) = stages.runs
    assert run.status == "skipped"
    assert run.reason == f"needs layers in a row that can be merged: {obstacle(network)}; use kmeans"


@pytest.mark.parametrize("seed", range(12))
def test_any_network_is_turned_into_its_equal_or_refused_in_one_line(seed: int):
    network = Network.of(random_network(seed), (3, 12, 12))
    reason = obstacle(network)
    assert (DeepAbstract().suits(network) is None) == bool(reason)
    assert "\n" not in reason
    if not reason:
        made, pixels = as_fully_connected(network), images(network, 8).images
        assert torch.allclose(made(pixels), network(pixels), atol=1e-4, rtol=1e-4)


def test_an_activation_that_no_layer_owns_forbids_merging():
    head = (nn.Flatten(), nn.Linear(32, 5), nn.ReLU(), nn.Linear(5, 2))
    module = nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU(), nn.AvgPool2d(2), nn.ReLU(), *head)
    assert "does not directly follow a layer" in obstacle(Network.of(settled(module), (3, 10, 10)))


def test_past_its_time_limit_kmeans_representatives_are_taken_and_the_result_says_so():
    network = CHAINS["averaging"]
    method = DeepAbstract(time_limit=1e-9, clustering_rate=0.2)
    found = method.abstract(network=network, samples=images(network), backend=BACKEND)
    assert found.abstract_network is None
    assert found.sources == {}
    assert found.notes == (
        "deepabstract: past its time limit of 1e-09 s; kmeans' representatives instead (AGNES, section 4)",
    )
    assert 0.2 <= found.rate("0") < 0.25


@pytest.mark.parametrize(
    ("method", "said"),
    [(DeepAbstract(), "abstraction rate"), (DeepAbstract(time_limit=1e-9), "kmeans' representatives instead")],
)
def test_the_report_says_what_was_merged_or_what_stepped_in(method: DeepAbstract, said: str):
    network = CHAINS["fully_connected"]
    chosen = Chosen("deepabstract", "abstraction", "agnes-abstraction", "0", method)
    stages = Stages(Selection((chosen,)), BACKEND, None, images(network))
    (found,) = stages.abstract(network)
    (run,) = stages.runs
    assert run.status == "ok"
    assert any(said in note for note in run.notes)
    assert (found.abstract_network is None) == ("instead" in said)


def test_half_of_the_runs_time_is_left_to_kmeans():
    network = CHAINS["averaging"]
    backend = Backend.choose("cpu", memory=1 << 28, time_budget=2.0)
    found = DeepAbstract(precision=0, images=40).abstract(network=network, samples=images(network), backend=backend)
    assert backend.remaining() > 0
    assert found.abstract_network is not None or "half the stage's time" in found.notes[0]


def test_weights_that_do_not_fit_the_memory_budget_give_kmeans_representatives():
    network = Network.of(settled(dense()), (3, 10, 10))
    small = Backend.choose("cpu", memory=40_000)
    with pytest.raises(TooLarge, match="memory budget"):
        as_fully_connected(network, small)
    found = DeepAbstract(accuracy_drop=0.0).abstract(network=network, samples=images(network), backend=small)
    assert found.abstract_network is None
    assert "memory budget" in found.notes[0]


def test_without_room_for_all_images_it_takes_fewer_and_says_so():
    network = CHAINS["averaging"]
    small = Backend.choose("cpu", memory=4 * 600 * 2 * 6 * 60)
    found = DeepAbstract().abstract(network=network, samples=images(network, 100), backend=small)
    assert found.notes[-1] == "all layers: clustered on 60 of 100 images, as many as the memory budget holds"


@pytest.mark.parametrize(
    "settings", [{"accuracy_drop": -0.1}, {"time_limit": 0.0}, {"precision": 1.5}, {"rounds": -1}, {"images": 0}]
)
def test_a_setting_that_makes_no_sense_is_refused_by_name(settings: dict[str, float]):
    with pytest.raises(UsageError, match=f"deepabstract.{next(iter(settings))}"):
        DeepAbstract(**settings)  # type: ignore[arg-type]
