#!/usr/bin/env bash
# RecBole 1.2.1: making a Config of any sequential model switches autograd's anomaly detection on for the whole process.
#
# Config looks its model up among all model files, and one of them, sine.py, calls torch.autograd.set_detect_anomaly(True) at its
# top level. From then on every backward pass of the process, also that of a network which isn't RecBole's, keeps the stack of each
# operation and looks for NaN: GRU4Rec's steps on ml-100k take 1.8 times as long on one thread. Importing recbole alone doesn't do
# it. Switch it off behind the last import of RecBole's models, as each first look-up of a model switches it on.
#
# Exits 0 while that is so, 1 if it has changed. Needs Python 3.11 and a package index. On ml-100k, which the package brings.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check recbole==1.2.1 torch==2.13.0 numpy==2.4.6 pandas==2.3.3 scipy==1.17.1 setuptools==81.0.0
cd "$folder"
cat > check.py <<'P'
import sys, time, warnings
import numpy as np
import torch

warnings.filterwarnings("ignore")
for old, new in {"float_": np.float64, "complex_": np.complex128, "unicode_": np.str_}.items():
    setattr(np, old, new)  # names that numpy 2 dropped and RecBole uses
import recbole
from recbole.data import create_dataset, data_preparation
from recbole.utils import get_model, init_seed
from recbole.config import Config

torch.set_num_threads(1)
sys.argv = sys.argv[:1]
imported = torch.is_anomaly_enabled()
config = Config(model="GRU4Rec", dataset="ml-100k", config_dict={
    "data_path": recbole.__path__[0] + "/dataset_example", "train_neg_sample_args": None, "loss_type": "CE",
    "MAX_ITEM_LIST_LENGTH": 10, "use_gpu": False, "state": "ERROR", "show_progress": False, "train_batch_size": 512,
    "load_col": {"inter": ["user_id", "item_id", "timestamp"]}, "checkpoint_dir": "saved",
})
configured = torch.is_anomaly_enabled()
init_seed(1, True)
dataset = create_dataset(config)
train, _, _ = data_preparation(config, dataset)
net = get_model("GRU4Rec")(config, train.dataset)
optimizer = torch.optim.Adam(net.parameters())
batches = [batch for batch, _ in zip(train, range(12))]


def seconds(detect: bool) -> float:
    torch.autograd.set_detect_anomaly(detect)
    started = time.perf_counter()
    for batch in batches:
        optimizer.zero_grad()
        net.calculate_loss(batch).backward()
        optimizer.step()
    return time.perf_counter() - started


seconds(False)  # warm-up
ratios = sorted(seconds(True) / seconds(False) for _ in range(7))
print(f"anomaly detection after the imports: {imported}; after Config(model='GRU4Rec'): {configured}")
print(f"12 steps with it take {ratios[3]:.2f} times as long as without (median of 7 pairs, {ratios[0]:.2f} to {ratios[-1]:.2f})")
print("recbole", recbole.__version__, "torch", torch.__version__)
sys.exit((imported, configured) != (False, True))
P
"$folder/venv/bin/python" check.py
