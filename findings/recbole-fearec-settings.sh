#!/usr/bin/env bash
# RecBole 1.2.1: FEARec learns without its contrastive losses, and settings that RecBole documents for them change nothing.
#
# FEARec's paper (arXiv 2304.09184) adds to attention in the frequency domain two contrastive losses and a regulariser. RecBole
# has defaults of .1 for their weights, lmd and lmd_sem, and documents `fredom` and `fredom_type` for the regulariser. But all of it
# stands behind a test of config["contrast"], which is neither in the default settings nor in the documentation. So the loss is
# the same to the bit with weights of 100, with the regulariser on, and with any spatial_ratio, which the documentation says to
# tune and which counts with dual_domain only, off by default. The second history that a contrast needs is drawn all the same.
# With contrast, tau and sim, the names that the code reads, the losses are there: a FEARec that was run with RecBole's defaults,
# as baselines are, is the plain network.
#
# Exits 0 while that is so, 1 if it has changed. Needs Python 3.11 and a package index. On ml-100k, which the package brings.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check recbole==1.2.1 torch==2.13.0 numpy==2.4.6 pandas==2.3.3 scipy==1.17.1 setuptools==81.0.0
cd "$folder"
cat > check.py <<'P'
import contextlib, io, sys, warnings

warnings.filterwarnings("ignore")
import numpy as np
import torch

for old, new in {"float_": np.float64, "complex_": np.complex128, "unicode_": np.str_}.items():
    setattr(np, old, new)  # names that numpy 2 dropped and RecBole uses
import recbole
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.utils import get_model, init_seed

sys.argv = sys.argv[:1]
torch.set_num_threads(1)
given = {
    "data_path": recbole.__path__[0] + "/dataset_example", "train_neg_sample_args": None, "use_gpu": False, "state": "ERROR",
    "show_progress": False, "train_batch_size": 64, "checkpoint_dir": "saved",
    "load_col": {"inter": ["user_id", "item_id", "timestamp"]}, "val_interval": {"timestamp": "(-inf,874900000]"},
}
by_hand = {"contrast": "us_x", "tau": 1.0, "sim": "dot"}


def loss(**settings):
    """The loss of the first batch of a new network, with the same random numbers each time."""
    config = Config(model="FEARec", dataset="ml-100k", config_dict=given | settings)
    init_seed(1, True)
    torch.autograd.set_detect_anomaly(False)
    train, _, _ = data_preparation(config, create_dataset(config))
    with contextlib.redirect_stdout(io.StringIO()):
        net = get_model("FEARec")(config, train.dataset)
    init_seed(2, True)
    value = net.calculate_loss(next(iter(train))).item()
    print(f"{value:.6f} with {settings or 'its defaults'}")
    return value


plain = loss()
idle = [loss(lmd=100.0, lmd_sem=100.0), loss(fredom=True, fredom_type="us_x"), loss(spatial_ratio=0.9)]
contrast = loss(**by_hand)
moved = [loss(**by_hand, lmd_sem=100.0), loss(**by_hand, fredom=True, fredom_type="us_x")]
print("recbole", recbole.__version__, "torch", torch.__version__)
sys.exit(not (all(value == plain for value in idle) and contrast != plain and contrast not in moved))
P
"$folder/venv/bin/python" check.py
