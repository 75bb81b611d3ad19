"""A tiny stand-in for base model and data set, to try everything without a hub or a GPU: python make_tiny_base.py FOLDER

Writes FOLDER/base (a GPT-2-like model of 0.3 million parameters with its tokenizer, trained here for some seconds) and
FOLDER/instructions.jsonl (Japanese and English instructions in the columns of kunishou/databricks-dolly-15k-ja). Then:

    export BASE_MODEL=FOLDER/base DATASET=FOLDER/instructions.jsonl EPOCHS=8 LEARNING_RATE=5e-3 MAX_LENGTH=96
"""

import itertools
import json
import sys
from pathlib import Path

import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

SEED = 7
VOCABULARY, LENGTH, STEPS, BATCH = 600, 96, 40, 16
END = "<|endoftext|>"

ENGLISH = {
    "a large language model": "a network that predicts the next word of a text",
    "a tracking server": "a place that keeps runs, metrics and models",
    "a metric": "a number that tells how good a run was",
    "a parameter": "a number that was chosen before the run",
    "a bucket": "a place in the object store where files are kept",
    "a container": "a file that holds a program and all that it needs",
    "a compute node": "a machine on which jobs run",
    "a queue": "a line in which jobs wait for a node",
}
JAPANESE = {
    "大規模言語モデル": "文章の次の語を予測するネットワーク",
    "トラッキングサーバ": "実行と指標とモデルを保存する場所",
    "指標": "実行の良さを表す数",
    "パラメータ": "実行の前に選んだ数",
    "バケット": "ファイルを置くオブジェクトストレージの場所",
    "コンテナ": "プログラムと必要なものをまとめたファイル",
    "計算ノード": "ジョブを実行する計算機",
    "キュー": "ジョブがノードを待つ列",
}


def records() -> list[dict[str, str]]:
    """Instructions with their answers, the same each time."""
    rows: list[tuple[str, str]] = []
    for thing, meaning in ENGLISH.items():
        rows += [(f"What is {thing}?", f"It is {meaning}."), (f"Explain {thing} in one sentence.", f"{thing.capitalize()} is {meaning}.")]
        rows += [(f"Complete: {thing} is", f"{meaning}.")]
    for thing, meaning in JAPANESE.items():
        rows += [(f"{thing}とは何ですか。", f"{meaning}です。"), (f"{thing}を一文で説明してください。", f"{thing}は{meaning}です。")]
        rows += [(f"{thing}という言葉の意味は。", f"{meaning}という意味です。")]
    keys = ("index", "category", "instruction", "input", "output")
    return [dict(zip(keys, (str(n), "open_qa", question, "", answer), strict=True)) for n, (question, answer) in enumerate(rows)]


def plain_text() -> list[str]:
    """What the base model has read: the things and their meanings, but no instruction and no answer to one."""
    english = [f"People know {thing} as {meaning}." for thing, meaning in ENGLISH.items()]
    return english + [f"{thing}。{meaning}。" for thing, meaning in JAPANESE.items()]


def make_tokenizer(folder: Path, texts: list[str]) -> PreTrainedTokenizerFast:
    learned = ByteLevelBPETokenizer()
    learned.train_from_iterator(texts, vocab_size=VOCABULARY, special_tokens=[END])
    file = folder / "learned.json"
    learned.save(str(file))
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(file), eos_token=END, bos_token=END, pad_token=END)
    file.unlink()
    return tokenizer


def make_base(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> GPT2LMHeadModel:
    """A model that has learned the plain text a little."""
    torch.manual_seed(SEED)
    config = GPT2Config(
        vocab_size=len(tokenizer), n_positions=512, n_embd=64, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=0, pad_token_id=0
    )
    model = GPT2LMHeadModel(config)
    stream = itertools.cycle([token for text in texts for token in [*tokenizer(text)["input_ids"], 0]])
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _step in range(STEPS):
        batch = torch.tensor([list(itertools.islice(stream, LENGTH)) for _ in range(BATCH)])
        loss = model(input_ids=batch, labels=batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    print(f"The base's loss on its own text: {loss.item():.2f}")
    return model


def main() -> None:
    if len(sys.argv) != 2:
        raise SystemExit("Usage: python make_tiny_base.py FOLDER")
    folder = Path(sys.argv[1])
    (folder / "base").mkdir(parents=True, exist_ok=True)
    rows = records()
    (folder / "instructions.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    tokenizer = make_tokenizer(folder, plain_text() + [f"{row['instruction']} {row['output']}" for row in rows])
    make_base(tokenizer, plain_text()).save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    print(f"{folder}/base and {folder}/instructions.jsonl ({len(rows)} instructions) are made.")


if __name__ == "__main__":
    main()
