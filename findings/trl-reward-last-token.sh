#!/usr/bin/env bash
# trl 1.16.0: GRPO and RLOO read a reward model at another token than the one at which RewardTrainer taught it.
#
# A reward model is learned from pairs of a wanted and an unwanted item, and GRPO then trains the LM by it. With texts that aren't chats,
# RewardTrainer writes the end token (EOS) behind each one and lets the tokenizer put its first token (BOS) in front. A sequence classifier
# has its score at the last token that isn't padding: what is learned is the score at EOS. GRPOTrainer and RLOOTrainer score the texts
# without either token, as completions are decoded without special tokens and the tokenizer is called without them. The score is then that
# of the item's last token, where none was taught. No error and no warning says so, and rewards are logged as ever.
#
# Here an item is wanted if it has the genre of the newest one, as 4 of 16 have. Two reward models ranked 99.0 % of 400 held-out pairs
# rightly in RewardTrainer's evaluation. By the rewards that GRPO got from them, 48.5 and 60.2 % of its pairs of completions were ranked
# rightly; by RLOO's, 48.2 %. With whole texts, by a reward function of a few lines, they ranked 100 and 99.6 % of GRPO's. In 40 steps
# GRPO took the share of wanted items from .52 to .56 and .59 by its own rewards, and to .96 and .93 by those of whole texts.
# Where EOS is the padding, too, the classifier passes over it in both trainers, and BOS alone is missing: 99.8 % became 74.4 % by GRPO's
# rewards, and the share of wanted items rose to .91.
#
# One would guess that trl's trainers give a reward model the texts that trl's own trainer gave it. The tracker has the same mismatch in
# an evaluation script of PPO's example (a review in 5813). Of GRPO or RLOO, nothing was found there or in the documentation.
#
# Exits 0 while that is so, 1 if it has changed. Needs Python 3.11 and a package index. Tiny LMs, trained here.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check trl==1.16.0 transformers==5.23.0 accelerate==1.15.0 \
    datasets==5.2.0 torch==2.13.0 numpy==2.4.6
cd "$folder"
cat > check.py <<'P'
import copy, itertools, random, sys, warnings

warnings.filterwarnings("ignore")
import datasets
import torch
import trl
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification, PreTrainedTokenizerFast, PrinterCallback
from trl import GRPOConfig, GRPOTrainer, RewardConfig, RewardTrainer, RLOOConfig, RLOOTrainer

datasets.disable_progress_bars()
torch.set_num_threads(1)
items = range(20, 36)  # the tokens of the items; the genre of an item is what is left of it by 4
genre = {f"w{item}": item % 4 for item in items}
common = {"report_to": [], "use_cpu": True, "bf16": False, "disable_tqdm": True, "gradient_checkpointing": False, "save_strategy": "no",
          "logging_steps": 1000, "per_device_train_batch_size": 64}
shape = {"vocab_size": 40, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
         "num_key_value_heads": 2, "bos_token_id": 37, "eos_token_id": 39}
pick = {"begin_suppress_tokens": [token for token in range(40) if token not in items], "forced_eos_token_id": 39}  # one item, and EOS


def tokens(padding):
    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(40)}, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.post_processor = processors.TemplateProcessing(single="w37 $A", special_tokens=[("w37", 37)])
    return PreTrainedTokenizerFast(tokenizer_object=words, bos_token="w37", eos_token="w39", pad_token=padding, unk_token="w0")


def pairs(count, chance):
    found = []
    for _ in range(count):
        newest, good, bad = (chance.choice(items) for _ in range(3))
        good, bad = good - good % 4 + newest % 4, bad - bad % 4 + (newest + chance.randrange(1, 4)) % 4
        found.append({"prompt": f"w1 w{newest} w2 ", "chosen": f"w{good}", "rejected": f"w{bad}"})
    return datasets.Dataset.from_list(found)


def reward_model(tokenizer, seed):
    torch.manual_seed(seed)
    chance = random.Random(seed)
    # item embeddings that differ by as much as a pretrained LM's do
    config = LlamaConfig(**shape, initializer_range=0.4, pad_token_id=tokenizer.pad_token_id, num_labels=1)
    trainer = RewardTrainer(
        model=LlamaForSequenceClassification(config), processing_class=tokenizer, train_dataset=pairs(2400, chance),
        eval_dataset=pairs(400, chance),
        args=RewardConfig("out", max_steps=150, learning_rate=0.005, per_device_eval_batch_size=100, seed=seed, **common))
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    net = trainer.model.eval()
    given = []
    hook = net.register_forward_hook(lambda module, args, sent, out: given.append(sent["input_ids"][0].tolist()), with_kwargs=True)
    accuracy = trainer.evaluate()["eval_accuracy"]
    hook.remove()
    return net, accuracy, given[0]


def writer(tokenizer):
    """An LM that has learned to write one item, a wanted one in every second case or so, and EOS."""
    torch.manual_seed(0)
    chance = random.Random(0)
    net = LlamaForCausalLM(LlamaConfig(**shape, initializer_range=0.1, pad_token_id=tokenizer.pad_token_id))
    optimiser = torch.optim.AdamW(net.parameters(), lr=0.01)
    for _ in range(250):
        rows = []
        for _ in range(64):
            newest, item = chance.choice(items), chance.choice(items)
            rows.append([37, 1, newest, 2, item - item % 4 + newest % 4 if chance.random() < 0.4 else item, 39])
        rows = torch.tensor(rows)
        net(input_ids=rows, labels=rows).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    return net


def tuned(trainer_class, config, tokenizer, lm, net, by_hand, steps):
    """How often the wanted one of two completions has the higher reward; shares of wanted ones at first and at last; a reward's tokens."""
    seen, scores, given = [], [], []

    def wanted(prompts, completions, **_):  # measured beside the reward, with a weight of 0
        seen.append([float(genre[done.strip()] == genre[prompt.split()[1]]) for prompt, done in zip(prompts, completions)])
        return seen[-1]

    def noted(module, args, sent, out):
        scores.append(out.logits[:, 0].tolist())
        given.append(sent["input_ids"][0].tolist())

    def whole_texts(prompts, completions, **_):
        inputs = tokenizer([f"{prompt}{done}w39" for prompt, done in zip(prompts, completions)], return_tensors="pt")
        with torch.no_grad():
            return net(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits[:, 0].tolist()

    hook = net.register_forward_hook(noted, with_kwargs=True)
    trainer = trainer_class(
        model=copy.deepcopy(lm), processing_class=tokenizer, reward_funcs=[whole_texts if by_hand else net, wanted],
        reward_processing_classes=[None if by_hand else tokenizer, None],
        train_dataset=datasets.Dataset.from_dict({"prompt": [f"w1 w{item} w2 " for item in items]}),
        args=config("out", max_steps=steps, learning_rate=0.003, num_generations=8, beta=0.0, max_completion_length=2,
                    generation_kwargs=pick, reward_weights=[1.0, 0.0], seed=0, **common))
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    hook.remove()
    groups = [(score[i:i + 8], said[i:i + 8]) for score, said in list(zip(scores, seen))[:5] for i in range(0, 64, 8)]
    right = [(a > b) + (a == b) / 2 for score, said in groups for (a, x), (b, y) in itertools.product(zip(score, said), repeat=2) if x > y]
    return sum(right) / len(right), sum(seen[0]) / 64, sum(map(sum, seen[-5:])) / 320, given[0]


print(f"trl {trl.__version__}; w37: BOS, w39: EOS")
print("padding  reward model  scored in          one text of a batch           wanted one is higher   wanted items: first, last steps")
rows = {}
for padding, seeds in (("w38", (0, 1)), ("w39", (0,))):
    tokenizer = tokens(padding)
    lm = writer(tokenizer)
    for seed in seeds:
        net, accuracy, given = reward_model(tokenizer, seed)
        rows[padding, seed, "RewardTrainer"] = accuracy, None, None, given
        ways = {"GRPO": (GRPOTrainer, GRPOConfig, False, 40)}
        if padding == "w38":
            ways |= {"RLOO": (RLOOTrainer, RLOOConfig, False, 5)} if seed == 0 else {}
            ways |= {"GRPO, by hand": (GRPOTrainer, GRPOConfig, True, 40)}
        for name, (trainer_class, config, by_hand, steps) in ways.items():
            rows[padding, seed, name] = tuned(trainer_class, config, tokenizer, lm, net, by_hand, steps)
        for (pad, number, name), (right, first, last, given) in rows.items():
            if (pad, number) == (padding, seed):
                shares = "" if first is None or name == "RLOO" else f"{first:29.3f}{last:8.3f}"
                print(f"{padding:9}{seed:<14}{name:19}{' '.join(f'w{token}' for token in given):30}{right:6.3f}{shares}", flush=True)
same = all(rows["w38", seed, name][0] < rows["w38", seed, "RewardTrainer"][0] - 0.15 for seed, name in ((0, "GRPO"), (0, "RLOO"), (1, "GRPO")))
same &= all(rows["w38", seed, "GRPO, by hand"][0] > 0.9 and rows["w38", seed, "RewardTrainer"][0] > 0.9 for seed in (0, 1))
same &= all(rows["w38", seed, "GRPO, by hand"][2] > rows["w38", seed, "GRPO"][2] + 0.15 for seed in (0, 1))
same &= rows["w38", 0, "GRPO"][3][-1] in items
same &= rows["w38", 0, "GRPO"][0] + 0.1 < rows["w39", 0, "GRPO"][0] < rows["w39", 0, "RewardTrainer"][0] - 0.1
sys.exit(not same)
P
"$folder/venv/bin/python" check.py 2> log || { cat log; exit 1; }
