"""What has to be the same on all ranks is compared, and named where it is not."""

from __future__ import annotations

from tests.launching import Launched

SAID = {
    "buffers": "1 of 3 buffers of rank 1 are not those of rank 0, the first of them "
    "'1.running_mean': the replicas have drifted apart. Copy rank 0's",
    "buffers that are not used": "nothing",
    "modes": "modes of the modules (train or eval) of rank 1 are not those of rank 0, the first of "
    "them 'the model': make them the same on all ranks",
    "frozen": "trainable parameters of rank 1 are not those of rank 0, the first of them "
    "'blocks.0.weight': make them",
    "criterion": "settings of the criterion of rank 1 are not those of rank 0, the first of them "
    "'weight': the replicas",
    "optimizer": "4 of 4 entries of the optimizer's state of rank 1",
    "optimizer on one rank": "`metric` is 'euclidean' on rank 0 and 'optimizer' on rank 1: give",
    "options": "`level` is a coverage between 0 and 1, such as 0.95; got 2.0",
    "vectors": "they are about to exchange products with",
    "later": "1 of 4 parameters of rank 1 are not those of rank 0, the first of them "
    "'blocks.0.bias': the replicas have drifted apart",
}


def test_differences_are_named_on_all_ranks(results_of: Launched) -> None:
    ranks = results_of(2, "drifted")
    for found in ranks:
        assert found.keys() == SAID.keys()
        for name, said in SAID.items():
            assert said in found[name], name
