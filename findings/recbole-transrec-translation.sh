#!/usr/bin/env bash
# RecBole 1.2.1: a penalty that can't be set holds TransRec's common translation at zero, and its other penalties do nothing.
#
# TransRec is to learn one vector T that leads from an item to the next one, and for each user how that user departs from it. RecBole
# adds four terms to the BPR loss, all of weight 1. Three, on the embeddings and the bias, are computed from detached tensors: they
# raise the loss that is shown, and gradients without them are equal to the bit. The fourth is RegLoss, "L2 regularization", which
# sums the norms of the parameters in a list. It is given T itself, goes over its numbers, and so sums their absolute values: a slope
# of 1 in each direction, where the BPR loss has one of .003 after three epochs. T stays within one step of the optimiser (.001) of
# zero, and TransRec is a model without the translation that it is named after. No setting weakens the penalty.
#
# One would guess an L2 penalty of a small weight on all of them, as the paper has. Without the fourth term T grows to two hundred times
# that in three epochs.
#
# Exits 0 while that is so, 1 if it has changed. Needs Python 3.11 and a package index. On ml-100k, which the package brings.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check recbole==1.2.1 torch==2.13.0 numpy==2.4.6 pandas==2.3.3 scipy==1.17.1 setuptools==81.0.0
cd "$folder"
cat > check.py <<'P'
import sys, warnings

warnings.filterwarnings("ignore")
import numpy as np
import torch

for old, new in {"float_": np.float64, "complex_": np.complex128, "unicode_": np.str_}.items():
    setattr(np, old, new)  # names that numpy 2 dropped and RecBole uses
import recbole
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.utils import get_model, get_trainer, init_seed

sys.argv = sys.argv[:1]
torch.set_num_threads(1)
config = Config(model="TransRec", dataset="ml-100k", config_dict={
    "data_path": recbole.__path__[0] + "/dataset_example", "use_gpu": False, "state": "CRITICAL", "show_progress": False, "epochs": 3,
    "load_col": {"inter": ["user_id", "item_id", "timestamp"]}, "checkpoint_dir": "saved", "MAX_ITEM_LIST_LENGTH": 5,
})
init_seed(1, True)
torch.autograd.set_detect_anomaly(False)
train, _, _ = data_preparation(config, create_dataset(config))
batch = next(iter(train))


class Nothing(torch.nn.Module):
    """In the place of a term of the loss."""

    def forward(self, *_):
        return torch.zeros(1)


def trained(penalty):
    """The network after three epochs, and the largest number of its T."""
    init_seed(2, True)
    net = get_model("TransRec")(config, train.dataset)
    if not penalty:
        net.reg_loss = Nothing()
    get_trainer(config["MODEL_TYPE"], "TransRec")(config, net).fit(train, verbose=False, saved=False)
    return net, net.T.abs().max().item()


def gradients(net):
    net.zero_grad()
    loss = net.calculate_loss(batch)
    loss.sum().backward()
    return loss.item(), [parameter.grad.clone() for parameter in net.parameters()]


(net, held), (_, free) = trained(True), trained(False)
loss, all_terms = gradients(net)
net.emb_loss = Nothing()
less, fewer_terms = gradients(net)
idle = all(torch.equal(one, other) for one, other in zip(all_terms, fewer_terms, strict=True))
print(f"a batch's loss: {loss:.4f}, without the three terms on embeddings and bias {less:.4f}; all gradients equal to the bit: {idle}")
net.reg_loss = Nothing()
gradients(net)
ranking = net.T.grad.abs().max().item()
penalty, numbers = recbole.model.loss.RegLoss(), torch.tensor([3.0, -4.0])
print(f"RegLoss of [3, -4]: {penalty(numbers).item():.0f}, of a list that holds it {penalty([numbers]).item():.0f}; "
      f"largest slope of the BPR loss at T: {ranking:.4f}")
print(f"largest number of T after three epochs at learning rate {config['learning_rate']}: {held:.4f}, without the penalty {free:.4f}")
print("recbole", recbole.__version__, "torch", torch.__version__)
as_described = idle and loss > less and penalty(numbers) == 7 and ranking < 0.2
sys.exit(not (as_described and held < 10 * config["learning_rate"] < free / 3))
P
"$folder/venv/bin/python" check.py
