"""A user's file of factories, and the one line of a command that fails."""

from gradnoise import cli

QUICK = ("--samples", "64", "--probes", "4", "--quiet")

HEAD = """
import torch
from torch import nn
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2)).double()
data = (torch.randn(60, 3).double(), torch.arange(60) % 2)
optimizer = torch.optim.SGD(model.parameters(), lr=0.25, momentum=0.5)
"""

FACTORIES = """
def three():
    return model, nn.CrossEntropyLoss(), data

def four():
    return model, nn.CrossEntropyLoss(), data, optimizer

def two():
    return model, data

def a_list():
    return [model, nn.CrossEntropyLoss(), data]

def broken():
    raise RuntimeError("the disk\\nis on fire")

def leaves():
    raise SystemExit(0)

def without_samples():
    return model, nn.CrossEntropyLoss(), []

def with_arguments(path, size, *, fast=True, **more):
    return three()

async def patient():
    return three()

def incomplete():
    {}['lr']

def asserts():
    assert not model

def without_cuda():
    model.to('cuda:99')

def defaults(size=3, *more, **others):
    return three()

def scalar_loss():
    return model, lambda model, batch: model(batch[0]).mean(), data

def coupled():
    return nn.Sequential(nn.BatchNorm1d(3), model[0]).double(), nn.CrossEntropyLoss(), data

not_a_function = 3
"""


TRAINED = """
import torch
from torch import nn
torch.manual_seed(0)
model = nn.Linear(3, 2).double()
data = (torch.randn(60, 3).double(), torch.arange(60) % 2)
optimizer = torch.optim.SGD(model.parameters(), lr=0.25, momentum=0.5)

def four():
    return model, nn.CrossEntropyLoss(), data, optimizer

def three():
    return four()[:3]

def loader():
    dataset = torch.utils.data.TensorDataset(*data)
    return *four()[:2], torch.utils.data.DataLoader(dataset, batch_size=4), optimizer

def wild():
    fast = torch.optim.SGD(model.parameters(), lr=1e9)
    return *four()[:2], loader()[2], fast

class Stream(torch.utils.data.IterableDataset):
    def __iter__(self):
        return iter([(x, y) for x, y in zip(*data)])

def stream():
    return *four()[:2], torch.utils.data.DataLoader(Stream(), batch_size=4), optimizer
"""


def refused(capsys, *arguments):
    """The one line on stderr of a command that has to fail with exit code 2."""
    try:
        code = cli.main([str(argument) for argument in arguments])
    except SystemExit as leaving:  # argparse leaves by itself
        code = leaving.code
    shown = capsys.readouterr()
    assert code == 2, shown
    assert "Traceback" not in shown.err
    assert len(shown.err.strip().split("\n")) == 1, shown.err
    assert shown.err.startswith("gradnoise: error: ")
    return shown.err


def said(capsys, *arguments):
    """What a command prints that works, without a progress bar."""
    assert cli.main([*map(str, arguments), "--quiet"]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    return shown.out
