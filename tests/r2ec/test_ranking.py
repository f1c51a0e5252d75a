"""Scores and ranks by hand; the reward's tests hold the ranks to a plain loop."""

import math

import torch

from r2ec.model.ranking import ndcg, scores, target_ranks


def test_scores_by_hand() -> None:
    products = scores(torch.tensor([[3.0, 4.0]]), torch.tensor([[6.0, 8.0], [4.0, -3.0]]), tau=0.5, normalize=True)
    assert torch.allclose(products, torch.tensor([[2.0, 0.0]]), atol=1e-6)
    products = scores(torch.tensor([[3.0, 4.0]]), torch.tensor([[1.0, 1.0]]), tau=0.5, normalize=False)
    assert torch.allclose(products, torch.tensor([[14.0]]))


def test_a_prior_is_added_to_every_user_s_scores() -> None:
    users, items = torch.tensor([[3.0, 4.0], [1.0, 0.0]]), torch.tensor([[6.0, 8.0], [4.0, -3.0]])
    with_prior = scores(users, items, tau=0.5, normalize=True, prior=torch.tensor([0.25, -1.0]))
    torch.testing.assert_close(with_prior, torch.tensor([[2.25, -1.0], [1.45, 0.6]]))


def test_ranks_and_their_ndcg_by_hand() -> None:
    # Inner products with (1, 0): 2, 1, 3, 1. For item 1 the items 0 and 2 are ahead, and 3 ties; item 2 is seen.
    items = torch.tensor([[2.0, 5.0], [1.0, 0.0], [3.0, 1.0], [1.0, 7.0]])
    users, targets, history = torch.tensor([[1.0, 0.0]] * 2), torch.tensor([1, 2]), torch.tensor([[2], [-1]])
    ranks = target_ranks(users, items, targets, history, tau=1.0, normalize=False)
    assert ranks.rank.tolist() == [3, 1]
    total = math.exp(2) + 2 * math.exp(1) + math.exp(3)
    torch.testing.assert_close(ranks.softmax, torch.tensor([math.exp(1), math.exp(3)]) / total)
    torch.testing.assert_close(ndcg(ranks.rank, 10), torch.tensor([0.5, 1.0]))
    assert ndcg(ranks.rank, 2).tolist() == [0.0, 1.0]
