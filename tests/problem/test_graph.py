"""The graph of an output, and derivatives through it."""

import torch

from gradnoise.problem.graph import nodes_of, vector_jacobian


def test_every_node_is_walked_once() -> None:
    w = torch.ones(2, requires_grad=True)
    twice = w * 2
    names = [type(node).__name__ for node in nodes_of((twice * twice).sum())]
    assert sorted(names) == ["AccumulateGrad", "MulBackward0", "MulBackward0", "SumBackward0"]


def test_products_leave_out_what_has_no_graph_and_what_is_not_reached() -> None:
    w, idle = (torch.tensor([2.0, 3.0], requires_grad=True) for _ in range(2))
    outputs, along = [w**2, torch.ones(2)], [torch.tensor([1.0, -1.0]), torch.ones(2)]
    for _ in range(2):  # the graph stays
        product, none = vector_jacobian(outputs, [w, idle], along)
        assert product is not None
        assert product.tolist() == [4.0, -6.0]
        assert none is None
    assert vector_jacobian(outputs[1:], [w, idle], along[1:]) == [None, None]


def test_products_are_dense_and_have_a_graph_where_asked_for() -> None:
    table = torch.tensor([[1.0], [2.0]], requires_grad=True)
    rows = torch.nn.functional.embedding(torch.tensor([1, 1]), table, sparse=True)
    (product,) = vector_jacobian([rows], [table], [torch.ones(2, 1)])
    assert product is not None
    assert product.tolist() == [[0.0], [2.0]]
    (product,) = vector_jacobian([table**3], [table], [torch.ones(2, 1)], create_graph=True)
    assert product is not None
    (again,) = torch.autograd.grad(product.sum(), table)
    assert again.tolist() == [[6.0], [12.0]]
