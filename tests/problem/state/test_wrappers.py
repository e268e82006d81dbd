"""Objects of training frameworks give the numbers of what is inside of them.

The classes here have the attributes of those of accelerate, Lightning, Fabric, torchdata and
Hugging Face's datasets, which are not installed where these tests run.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    Sampler,
    TensorDataset,
)

import gradnoise as gn
from gradnoise.problem.state.wrappers import (
    bare_data,
    bare_model,
    bare_optimizer,
    batch_size_of,
    eager,
    length_of,
)
from tests.cases import mlp

CE = nn.CrossEntropyLoss()


def data(count: int = 64) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randn(count, 4), torch.randint(0, 3, (count,))


def loader(**options: Any) -> DataLoader[Any]:
    return DataLoader(TensorDataset(*data()), **{"batch_size": 8, "shuffle": True, **options})


class AcceleratedOptimizer(torch.optim.Optimizer):
    """A torch optimizer by class, that hands everything on."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer

    param_groups = property(lambda self: self.optimizer.param_groups)
    state = property(lambda self: self.optimizer.state)
    defaults = property(lambda self: self.optimizer.defaults)


class LightningOptimizer:
    """A subclass of the optimizer's own class."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self._optimizer = optimizer
        self.__class__ = type("LightningSGD", (type(self), type(optimizer)), {})

    optimizer = property(lambda self: self._optimizer)


class AcceleratedScheduler:
    """The scheduler, and a list of optimizers."""

    def __init__(self, scheduler: Any, optimizer: Any) -> None:
        self.scheduler, self.optimizers = scheduler, [optimizer]


class Engine:
    """Of the kind of DeepSpeed's: no torch optimizer by class."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer, self.param_groups = optimizer, optimizer.param_groups


OPTIMIZERS: dict[str, Any] = {
    "accelerate": AcceleratedOptimizer,
    "accelerate, twice": lambda o: AcceleratedOptimizer(AcceleratedOptimizer(o)),
    "Lightning": LightningOptimizer,
    "DeepSpeed": Engine,
    "scheduler": lambda o: torch.optim.lr_scheduler.StepLR(o, 10),
    "scheduler of accelerate": lambda o: AcceleratedScheduler(
        torch.optim.lr_scheduler.StepLR(o, 10), o
    ),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_is_seen_through(name: str) -> None:
    model = mlp()
    inner = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    outer = OPTIMIZERS[name](inner)
    assert bare_optimizer(outer) is inner
    own, found = (gn.profile(model, CE, loader(), optimizer=o) for o in (inner, outer))
    assert found.optimizer == own.optimizer
    assert found.recommend() == own.recommend()
    assert found.groups.keys() == own.groups.keys()
    lr = gn.critical_lr(model, CE, loader(), outer)
    assert lr == gn.critical_lr(model, CE, loader(), inner)


def test_every_call_that_is_given_an_optimizer_sees_through_it() -> None:
    model = mlp()
    inner = torch.optim.Adam(model.parameters(), lr=0.01)
    CE(model(data()[0]), data()[1]).backward()
    inner.step()
    outer = AcceleratedOptimizer(inner)
    runs: dict[str, Any] = {"batch_sizes": [8, 16], "samples": 64}

    def numbers(optimizer: Any) -> list[Any]:
        hessian = gn.Hessian(model, CE, loader())
        return [
            gn.measure(model, CE, loader(), optimizer=optimizer, metric="optimizer").noise_scale(),
            (gn.Preconditioned(hessian, optimizer) @ torch.ones(hessian.shape[0])).tolist(),
            gn.branch(model, CE, loader(), optimizer, **runs).records,
            gn.cooled(model, CE, loader(), optimizer, steps=3)[0].weight.tolist(),
            gn.sweep(
                model, CE, loader(), optimizer=optimizer, batch_sizes=[8], lrs=[0.01], steps=3
            ).records,
        ]

    assert repr(numbers(outer)) == repr(numbers(inner))


def test_what_is_no_optimizer_is_told_as_before() -> None:
    assert bare_optimizer(None) is None
    with pytest.raises(gn.ArgumentError, match=r"must be a torch\.optim\.Optimizer; got str"):
        gn.profile(mlp(), CE, data(), optimizer="adam")  # type: ignore[arg-type]


class DataLoaderShard:
    """accelerate's: no DataLoader by class, made from a `batch_sampler`."""

    def __init__(self, given: DataLoader[Any], processes: int = 1) -> None:
        self.base_dataloader = DataLoader(given.dataset, batch_sampler=given.batch_sampler)
        self.processes = processes

    def __getattr__(self, name: str) -> Any:
        if name == "base_dataloader":
            raise AttributeError
        return getattr(self.base_dataloader, name)

    def __iter__(self) -> Iterator[Any]:
        raise AssertionError("iterating counts steps and synchronises generators")

    __class__ = property(lambda self: DataLoader)  # type: ignore[assignment]

    total_batch_size = property(lambda self: self.batch_sampler.batch_size * self.processes)


class FabricDataLoader:
    """Fabric's: the attributes of the loader inside, by copy."""

    def __init__(self, given: DataLoader[Any]) -> None:
        vars(self).update(vars(given))
        self._dataloader = given


class Stateful:
    """torchdata's samplers, by the same names."""

    class RandomSampler(Sampler[int]):
        def __init__(self, source: Any) -> None:
            self.data_source, self.replacement, self.num_samples = source, False, len(source)

        def __iter__(self) -> Iterator[int]:
            return iter(torch.randperm(len(self.data_source)).tolist())

        def __len__(self) -> int:
            return len(self.data_source)

    class BatchSampler(BatchSampler):
        pass

    def __new__(cls, given: DataLoader[Any]) -> Any:
        sampler = cls.RandomSampler(given.dataset)
        return DataLoader(given.dataset, batch_sampler=cls.BatchSampler(sampler, 8, False))


LOADERS: dict[str, Any] = {
    "accelerate": DataLoaderShard,
    "Fabric": FabricDataLoader,
    "torchdata": Stateful,
    "batch sampler": lambda d: DataLoader(d.dataset, batch_sampler=d.batch_sampler),
}


@pytest.mark.parametrize("name", LOADERS)
def test_a_loader_is_seen_through(name: str) -> None:
    model, outer = mlp(), LOADERS[name](loader())
    own, found = (gn.profile(model, CE, given, max_samples=40) for given in (loader(), outer))
    assert (found.batch_size, found.samples, found.population) == (8, 40, 64)
    assert found.estimates == own.estimates
    assert found.warnings == own.warnings
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    runs = gn.branch(model, CE, outer, sgd, batch_sizes=[4], samples=16)
    assert runs.batch_size == 8


def test_the_batch_size_is_that_of_all_processes() -> None:
    assert batch_size_of(DataLoaderShard(loader(), processes=4)) == 32
    assert batch_size_of(loader(batch_size=5)) == 5
    assert batch_size_of(data()) is None


def test_a_sampler_of_ones_own_stays() -> None:
    batches = [[0, 1], [2, 3]]
    own = DataLoader(TensorDataset(*data()), batch_sampler=batches)
    assert bare_data(own) is own
    weighted = torch.utils.data.WeightedRandomSampler([1.0] * 64, 10)
    found = bare_data(DataLoader(own.dataset, batch_sampler=BatchSampler(weighted, 5, True)))
    assert found.sampler is weighted
    assert (found.batch_size, found.drop_last) == (5, True)


class Stream(IterableDataset[Any]):
    """The samples in order, and how many there are."""

    def __iter__(self) -> Iterator[Any]:
        return zip(*data(), strict=True)


class SizedStream(Stream):
    def __len__(self) -> int:
        return 64


class UnknownStream(Stream):
    def __len__(self) -> int:
        raise TypeError


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: DataLoader(s, batch_size=8)])
def test_a_stream_that_knows_its_length_has_a_population(wrap: Any) -> None:
    model = mlp()
    assert gn.profile(model, CE, wrap(SizedStream()), max_samples=16).population == 64
    for unknown in (Stream(), UnknownStream()):
        assert length_of(unknown) == float("inf")
        assert gn.profile(model, CE, wrap(unknown), max_samples=16).population == float("inf")


class HFDataset(Dataset[Any]):
    """Plain lists until a format is set."""

    def __init__(self, kind: str | None = None) -> None:
        self.format = {"type": kind}

    def with_format(self, kind: str) -> HFDataset:
        return HFDataset(kind)

    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> dict[str, Any]:
        x, y = (values[index] for values in data())
        if self.format["type"] == "torch":
            return {"x": x, "y": y}
        return {"x": x.tolist(), "y": int(y)}


class HFStream(IterableDataset[Any]):
    def __init__(self, formatting: Any = None) -> None:
        self._formatting = formatting

    def with_format(self, kind: str) -> HFStream:
        return HFStream(kind)

    def __iter__(self) -> Iterator[Any]:
        return (HFDataset(self._formatting)[i] for i in range(64))


def test_data_sets_without_a_format_give_tensors() -> None:
    def loss_fn(model: nn.Module, batch: Any) -> Tensor:
        return F.cross_entropy(model(batch["x"]), batch["y"], reduction="none")

    model = mlp()
    own = gn.gradient_moments(model, CE, data()).trace_cov
    for given in (HFDataset(), HFDataset("torch"), HFStream(), HFStream("torch")):
        found = gn.gradient_moments(model, loss_fn, given)
        assert float(found.trace_cov) == pytest.approx(float(own), rel=1e-6)
    custom = HFDataset("custom")  # a transform of the user's own
    assert bare_data(custom) is custom


class _FabricModule(nn.Module):  # the name that Fabric gives it
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self._forward_module = self._original_module = inner

    def forward(self, x: Tensor) -> Tensor:
        return self._register_backward_hook(self._forward_module(x))

    def _register_backward_hook(self, output: Tensor) -> Tensor:
        output.register_hook(self._refuse)
        return output

    def _refuse(self, _gradient: Tensor) -> None:
        raise RuntimeError("requires you to call fabric.backward")


@pytest.fixture
def _one_process(tmp_path: Any) -> Iterator[None]:
    distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1
    )
    yield
    distributed.destroy_process_group()


class Waits(DistributedDataParallel):
    """Another process would have to take part."""

    def _pre_forward(self, *_inputs: Any, **_kwargs: Any) -> Any:
        raise AssertionError("the other processes are waited for")


MODELS: dict[str, Any] = {
    "DistributedDataParallel": DistributedDataParallel,
    "static graph": lambda m: DistributedDataParallel(m, static_graph=True),
    "of several processes": Waits,
    "DataParallel": nn.DataParallel,
    "AveragedModel": AveragedModel,
    "compiled": lambda m: torch.compile(m, backend="aot_eager"),
    "compiled, in parallel": lambda m: torch.compile(
        DistributedDataParallel(m), backend="aot_eager"
    ),
    "Fabric": _FabricModule,
}


@pytest.mark.usefixtures("_one_process")
@pytest.mark.parametrize("name", MODELS)
def test_a_model_is_seen_through(name: str) -> None:
    plain = mlp()
    outer = MODELS[name](copy.deepcopy(plain))
    before = [set(vars(module)) for module in outer.modules()]
    own, found = (gn.profile(model, CE, data()) for model in (plain, outer))
    assert found.estimates == own.estimates
    assert found.layers == own.layers  # with the names that they have in the user's own model
    assert (found.model, found.engine) == (own.model, own.engine)
    assert [set(vars(module)) for module in outer.modules()] == before
    sgds = [torch.optim.SGD(model.parameters(), lr=0.1) for model in (plain, outer)]
    first, second = (
        gn.branch(model, CE, data(), sgd, batch_size=8, batch_sizes=[8], samples=64).records
        for model, sgd in zip((plain, outer), sgds, strict=True)
    )
    assert second == first


@pytest.mark.skipif(not hasattr(torch.compiler, "set_stance"), reason="torch 2.6 and newer")
def test_every_call_measures_compiled_models_and_functions() -> None:
    torch.manual_seed(0)
    plain, batch = mlp().double(), (data()[0].double(), data()[1])
    scaled = torch.compile(lambda x: x * torch.sigmoid(x), backend="aot_eager")

    def loss_fn(model: nn.Module, batch: Any) -> Tensor:
        return F.cross_entropy(scaled(model(batch[0])), batch[1], reduction="none")

    def written(model: nn.Module, batch: Any) -> Tensor:
        return F.cross_entropy(F.silu(model(batch[0])), batch[1], reduction="none")

    compiled = torch.compile(plain, backend="aot_eager")
    compiled(batch[0]).sum().backward()
    sgd = torch.optim.SGD(plain.parameters(), lr=0.1)
    ones = torch.ones(sum(p.numel() for p in plain.parameters()), dtype=torch.float64)
    calls: dict[str, Any] = {
        "noise_scale": lambda m, f: gn.noise_scale(m, f, batch).hessian.value,
        "sharpness": lambda m, f: gn.sharpness(m, f, batch).values,
        "covariance": lambda m, f: gn.covariance(m, f, batch).trace.value,
        "diagnostics": lambda m, f: gn.diagnostics(m, f, batch).norm_test.value,
        "batch_sharpness": lambda m, f: gn.batch_sharpness(m, f, batch, batch_size=8).value,
        "layers": lambda m, f: [
            s.sharpness.value for s in gn.layer_noise_scales(m, f, batch).values()
        ],
        "critical_lr": lambda m, f: gn.critical_lr(m, f, batch, sgd).value,
        "trace": lambda m, f: gn.trace(gn.Hessian(m, f, batch)).value,
        "GaussNewton": lambda m, f: gn.GaussNewton(m, gn.supervised(CE), batch) @ ones,
        **{
            f"Hessian, {mode}": lambda m, f, mode=mode: gn.Hessian(m, f, batch, hvp=mode) @ ones
            for mode in ("auto", "kept", "fresh", "forward", "finite")
        },
        **{
            engine: lambda m, f, e=engine: gn.per_sample_sq_norms(m, f, batch, engine=e)
            for engine in ("hooks", "functional", "loop")
        },
    }
    for name, call in calls.items():
        torch.testing.assert_close(call(compiled, loss_fn), call(plain, written), msg=name)


def test_weights_are_averaged_by_the_names_that_they_have_inside() -> None:
    model, ema = mlp(), mlp()
    compiled = torch.compile(model, backend="aot_eager")
    own = gn.swing(model, CE, data(), ema).share
    for outer in (AveragedModel(ema), torch.compile(ema, backend="aot_eager"), ema):
        assert gn.swing(compiled, CE, data(), outer).share == own


def test_what_is_no_wrapper_is_left_alone() -> None:
    class AveragedModel(nn.Module):
        module = None

    model = AveragedModel()
    nested = nn.DataParallel(torch.compile(model, backend="eager"))  # type: ignore[arg-type]
    assert bare_model(nested) is model
    assert bare_model(model) is model
    assert bare_model("model") == "model"
    assert bare_data([1]) == [1]


def test_the_stance_of_the_compiler_is_left_alone_where_nothing_was_compiled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(_stance: str) -> None:
        raise AssertionError

    monkeypatch.setattr(torch.compiler, "set_stance", refuse, raising=False)  # torch 2.6 and newer
    monkeypatch.delitem(sys.modules, "torch._dynamo", raising=False)
    with eager():
        pass
    monkeypatch.delattr(torch.compiler, "set_stance")
    monkeypatch.setitem(sys.modules, "torch._dynamo", torch)
    with eager():
        pass
