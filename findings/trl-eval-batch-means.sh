#!/usr/bin/env bash
# trl 1.16.0: figures of an evaluation are means over batches, not over cases, so that they depend on the batch size and a worse LM can
# be ahead.
#
# DPO's documentation says that rewards/accuracies is the proportion of examples whose chosen completion has the higher reward. trl takes
# the mean of each batch, and of these the plain mean. The last batch, which is short where the batch size doesn't divide the cases, counts
# as much as the others. With 100 cases and batches of 32, each of the last four counts 8 times as much as another. By its source trl
# does so with all that it logs of an evaluation itself; here with DPO's accuracies, SFT's token accuracy and GRPO's reward. The eval_loss
# beside them is weighted by cases, and is right. DPO and SFT keep the cases' order, so that the last batch may be of the newest users.
#
# Here LM A wins .96 of 100 pairs by hand, and LM B .84. In one batch trl says so. With batches of 32, A has .750 and B .875, so that
# metric_for_best_model would take B. With batches of 8, the default, they have .923 and .846. SFT's token accuracy is .975 and .920 by
# hand, and .844 and .938 with batches of 32. GRPO's eval_reward for B is .867, where its own rewards have a mean of .830. No warning
# says so, and DPO's loss is the same with all batch sizes.
#
# One would guess that an evaluation's figure is that of its cases, as its loss is and as compute_metrics would be. Issue 39241 of
# transformers tells that eval_loss of rows of different lengths depends on the batch size. An issue about trl's figures wasn't found.
#
# Exits 0 while that is so, 1 if it has changed. Needs Python 3.11 and a package index. A tiny LM with random weights.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check trl==1.16.0 transformers==5.23.0 accelerate==1.15.0 \
    datasets==5.2.0 torch==2.13.0 numpy==2.4.6
cd "$folder"
cat > check.py <<'P'
import logging, sys, warnings

warnings.filterwarnings("ignore")
import datasets
import torch
import transformers
import trl
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, PrinterCallback
from transformers.utils.logging import disable_progress_bar
from trl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer

datasets.disable_progress_bars()
disable_progress_bar()
torch.set_num_threads(1)
words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(32)}, unk_token="w0"))
words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="w31", pad_token="w30", unk_token="w0")
torch.manual_seed(0)
LlamaForCausalLM(LlamaConfig(
    vocab_size=32, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2,
    bos_token_id=None, eos_token_id=31, pad_token_id=30, initializer_range=0.2)).save_pretrained("lm")
usual = {"logging_steps": 1, "report_to": [], "use_cpu": True, "bf16": False, "seed": 1, "disable_tqdm": True, "save_strategy": "no",
         "gradient_checkpointing": False}
chosen, rejected = ([16 + (i + step) % 8 for i in range(16)] for step in (0, 1))  # after each last item read: the next one, another one
cases = [k % 12 for k in range(96)] + [12, 13, 14, 15]  # 100 validation cases; the last 4 are of histories that no other case has
pairs = Dataset.from_list([{"prompt": f"w{i} ", "chosen": f"w{chosen[i]}", "rejected": f"w{rejected[i]}"} for i in cases])
targets = Dataset.from_list([{"prompt": f"w{i} ", "completion": f"w{chosen[i]}"} for i in cases])


def tuned(name, wrong):
    """An LM that has learned which item is next, but the other one after some items."""
    rows = [{"prompt": f"w{i} ", "completion": f"w{(rejected if i in wrong else chosen)[i]}"} for i in range(16)]
    settings = SFTConfig("out", max_steps=60, learning_rate=0.02, **usual)
    trainer = SFTTrainer("lm", args=settings, train_dataset=Dataset.from_list(rows), processing_class=tokenizer)
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    trainer.model.save_pretrained(name)
    return name


def by_hand(name):
    """Of all cases: the share with the next item likelier than the other one against the untuned LM, and of targets that rank first."""
    nets = [LlamaForCausalLM.from_pretrained(one).eval() for one in (name, "lm")]
    with torch.no_grad():
        own, reference = (net(torch.tensor([[i] for i in cases])).logits[:, -1].log_softmax(-1) for net in nets)
        ends = nets[0](torch.tensor([[i, chosen[i]] for i in cases])).logits[:, -1].argmax(-1) == tokenizer.eos_token_id
    gain, every = own - reference, range(len(cases))
    wins = [(gain[k, chosen[cases[k]]] > gain[k, rejected[cases[k]]]).item() for k in every]
    first = [(own[k].argmax() == chosen[cases[k]]).item() for k in every]
    return sum(wins) / len(cases), (sum(first) + ends.sum().item()) / (2 * len(cases))  # a completion is an item and the end


rewards = []


def reward(completion_ids, target, **_):
    rewards.extend(one := [float(ids[0] == right) for ids, right in zip(completion_ids, target, strict=True)])
    return one


def evaluated(name, size):
    """DPO's share of pairs won and its loss, SFT's accuracy, GRPO's reward, and the mean of the rewards that GRPO was given."""
    said.clear()
    out = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        dpo = DPOTrainer(LlamaForCausalLM.from_pretrained(name), ref_model=LlamaForCausalLM.from_pretrained("lm"), train_dataset=pairs,
                         eval_dataset=pairs, args=DPOConfig("out", per_device_eval_batch_size=size, **usual), processing_class=tokenizer)
        sft = SFTTrainer(name, args=SFTConfig("out", per_device_eval_batch_size=size, **usual), train_dataset=targets,
                         eval_dataset=targets, processing_class=tokenizer)
        asked = targets.add_column("target", [chosen[i] for i in cases]).remove_columns("completion")
        settings = GRPOConfig("out", per_device_train_batch_size=8, per_device_eval_batch_size=2 * size, num_generations=2,
                              max_completion_length=2, **usual)  # two texts of each prompt
        grpo = GRPOTrainer(name, reward_funcs=reward, args=settings, train_dataset=asked, eval_dataset=asked, processing_class=tokenizer)
        for trainer, keys in ((dpo, ("eval_rewards/accuracies", "eval_loss")), (sft, ("eval_mean_token_accuracy",)), (grpo, ("eval_reward",))):
            trainer.remove_callback(PrinterCallback)
            rewards.clear()
            metrics = trainer.evaluate()
            out += [metrics[key] for key in keys]
    notes.append({*said, *(str(one.message) for one in caught)})
    return *out, sum(rewards) / len(rewards)


class Said(logging.Handler):
    def emit(self, record):
        said.append(record.getMessage())


said, notes = [], []
for library in ("transformers", "trl"):
    logging.getLogger(library).addHandler(Said(level=logging.WARNING))
found = {}
for name, wrong in (("A", (12, 13, 14, 15)), ("B", (10, 11))):
    tuned(name, wrong)
    won, right = by_hand(name)
    print(f"LM {name}, by hand: pairs won {won:.4f}, tokens right {right:.4f}")
    for size in (100, 32, 8):
        accuracy, loss, tokens, mean, own = found[name, size] = evaluated(name, size)
        print(f"    batches of {size:3}: DPO's rewards/accuracies {accuracy:.4f} (loss {loss:.4f}), SFT's mean_token_accuracy {tokens:.4f}, "
              f"GRPO's reward {mean:.4f} (the rewards' mean {own:.4f})")
    found[name] = won, right
told = sorted((notes[1] | notes[4]) - (notes[0] | notes[3]))
print("said with batches of 32 only:", told)
print("trl", trl.__version__, "transformers", transformers.__version__)
as_described = not told
for name in "AB":
    won, right = found[name]
    accuracy, loss, tokens, mean, own = zip(*(found[name, size] for size in (100, 32, 8)), strict=True)
    as_described &= abs(accuracy[0] - won) < 1e-3 and abs(tokens[0] - right) < 1e-3 and abs(mean[0] - own[0]) < 1e-3
    as_described &= max(loss) - min(loss) < 1e-3 and min(abs(accuracy[1] - won), abs(tokens[1] - right)) > 0.01 and abs(mean[1] - own[1]) > 1e-3
better = [found["A", size][0] > found["B", size][0] for size in (100, 32)]
sys.exit(not (as_described and found["A"][0] > found["B"][0] and better == [True, False]))
P
"$folder/venv/bin/python" check.py
