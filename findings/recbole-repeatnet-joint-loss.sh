#!/usr/bin/env bash
# RecBole 1.2.1: RepeatNet's joint loss doesn't know which case is a repeat, only how many of the batch are.
#
# RepeatNet's gate says whether a user will take an item of the history again or a new one. Its paper trains the gate by a loss of
# its own beside the ranking's: minus the logarithm of the probability of what the case was. RecBole has it as `joint_train`, and its
# documentation says to try it. But the flags stand in a column, [B, 1], and the logarithms in a row, [B]; their product has B x B
# numbers, each flag with each case's gate. The mean of all is the share of repeats times the mean logarithm over all cases. So other
# cases may be the repeats, and the loss stays the same; every case is pushed towards the batch's share. A gate that learns by this
# loss alone, where the history says it all, gives repeats and new items the same probability. By the paper's loss it tells them apart.
#
# One would guess that a loss named after each case's outcome tells the cases apart.
#
# Exits 0 while that is so, 1 if it has changed. Needs Python 3.11 and a package index. Made-up histories.
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
from pathlib import Path

from recbole.utils import get_model, init_seed

sys.argv = sys.argv[:1]
torch.set_num_threads(1)
draw = np.random.default_rng(1)
rows = ["user_id:token\titem_id:token\ttimestamp:float"]
for user in range(200):  # who begins with "again" takes one item over and over, who begins with "new" never the same twice
    items = draw.choice(40, size=4, replace=False)
    taken = ["again", *[items[0]] * 4] if user % 2 else ["new", *items]
    rows += [f"{user}\t{item}\t{second}" for second, item in enumerate(taken)]
Path("data/planted").mkdir(parents=True)
Path("data/planted/planted.inter").write_text("\n".join(rows) + "\n")
config = Config(model="RepeatNet", dataset="planted", config_dict={
    "data_path": "data", "train_neg_sample_args": None, "joint_train": True, "dropout_prob": 0.0, "MAX_ITEM_LIST_LENGTH": 4,
    "use_gpu": False, "state": "CRITICAL", "show_progress": False, "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
    "eval_args": {"split": {"RS": [1, 0, 0]}, "order": "TO", "group_by": "user", "mode": "full"},
})
init_seed(1, True)
torch.autograd.set_detect_anomaly(False)
dataset = create_dataset(config)
train = dataset.build()[0]
cases = train.inter_feat[train.inter_feat["item_length"] >= 2]
history, length, target = cases["item_id_list"], cases["item_length"], cases["item_id"]
repeat = (history == target[:, None]).any(1)


def stock(net, wanted=target):
    return net.repeat_explore_loss(history, wanted)


def paper(net, flags=repeat):
    return -torch.where(flags, net.repeat_explore[:, 0], net.repeat_explore[:, 1]).add(1e-8).log().mean()


# The same number of repeats, but others: the flags of one half exchanged with the other half's.
order = torch.argsort(repeat.int(), stable=True)
other = repeat.clone()
half = len(order) // 4
other[order[:half]], other[order[-half:]] = True, False
elsewhere = torch.where(other, history[:, 0], torch.full_like(target, dataset.item_num + 1))
init_seed(2, True)
net = get_model("RepeatNet")(config, train)
with torch.no_grad():
    for parameter in net.repeat_explore_mechanism.parameters():
        parameter.mul_(5)  # a gate that isn't the same for all
    net(history, length)
    losses = [stock(net).item(), stock(net, elsewhere).item(), paper(net).item(), paper(net, other).item()]
print(f"{len(target)} cases, {int(repeat.sum())} of them repeats. RecBole's loss {losses[0]:.5f}, with other {int(other.sum())} cases as repeats "
      f"{losses[1]:.5f}; the paper's {losses[2]:.5f}, {losses[3]:.5f}")

gates = {}
for name, loss_of in (("RecBole's", stock), ("the paper's", paper)):
    init_seed(2, True)
    net = get_model("RepeatNet")(config, train)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    for _ in range(60):
        optimizer.zero_grad()
        net(history, length)
        loss_of(net).backward()
        optimizer.step()
    with torch.no_grad():
        net(history, length)
    says = net.repeat_explore[:, 0]
    gates[name] = says[repeat].mean().item(), says[~repeat].mean().item()
    print(f"after 60 steps by {name} loss alone: probability of a repeat {gates[name][0]:.4f} where it was one, {gates[name][1]:.4f} where not")
print("recbole", recbole.__version__, "torch", torch.__version__)
(stock_yes, stock_no), (paper_yes, paper_no) = gates.values()
blind = abs(losses[0] - losses[1]) < 1e-5 and abs(losses[2] - losses[3]) > 1e-3 and abs(stock_yes - stock_no) < 0.05
sys.exit(not (blind and paper_yes > 0.95 and paper_no < 0.05))
P
"$folder/venv/bin/python" check.py
