#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""tasks.py MODEL LOG BOS CTX LIMIT NAME=FILE... - hold eval-tasks to a plain computation in float64

LOG is what eval-tasks --samples wrote for these tasks under --bos=BOS --ctx=CTX --limit=LIMIT.
Prompts are made by the harness's own expressions, tokens by qp-tok, likelihoods by llama.py or, of
other families, from the logits of qp-forward, which has golden files of its own.
Prints the largest error of a log-likelihood; exits 1 above 1e-4, or if an answer differs.
"""
import csv
import json
import re
import subprocess
import sys

import msgpack
import numpy as np

from llama import Llama


def clean(text):
    text = text.strip()
    text = text.replace(" [title]", ". ")
    text = re.sub("\\[.*?\\]", "", text)
    return text.replace("  ", " ")


def lower(choice):
    return choice[0].lower() + choice[1:]


def arc(d, name):
    d = dict(d, **d["question"], question=d["question"]["stem"]) \
        if isinstance(d.get("question"), dict) else d
    c = d["choices"]
    texts = c["text"] if isinstance(c, dict) else [x["text"] for x in c]
    labels = c["label"] if isinstance(c, dict) else [x["label"] for x in c]
    gold = labels.index(d["answerKey"].lstrip())
    if name == "openbookqa":
        return d.get("question_stem", d.get("question")), texts, gold
    return "Question: %s\nAnswer:" % d["question"], texts, gold


def copa(d):
    word = {"cause": "because", "effect": "therefore"}[d["question"]]
    return (d["premise"].strip()[:-1] + f" {word}",
            [" " + lower(d["choice1"]), " " + lower(d["choice2"])], d["label"])


def story(d):
    first = ["input_sentence_%d" if "story_id" in d else "InputSentence%d",
             "sentence_quiz%d" if "story_id" in d else "RandomFifthSentenceQuiz%d"]
    gold = d["answer_right_ending"] if "story_id" in d else d["AnswerRightEnding"]
    return (" ".join(d[first[0] % i] for i in (1, 2, 3, 4)), [d[first[1] % i] for i in (1, 2)],
            int(gold) - 1)


def make(name, d):
    """kind, [(context, continuation)], lengths' texts, gold"""
    if "query" in d:
        join = {"piqa": "Answer: ", "boolq": "\nAnswer: ", "arc_easy": "\nAnswer: ",
                "arc_challenge": "\nAnswer: "}.get(name, " ")
        return "choice", [(d["query"] + join, c) for c in d["choices"]], d["choices"], d["gold"]
    if "context_options" in d:
        o = d["context_options"]
        return "schema", [(c, " " + d["continuation"]) for c in o], o, d["gold"]
    if "continuation" in d:
        return "cloze", [(d["context"], " " + d["continuation"])], [""], 0
    if name.startswith("lambada"):
        words = d["text"].split(" ")
        return "cloze", [(" ".join(words[:-1]), " " + words[-1])], [""], 0
    if name == "winogrande":
        i = d["sentence"].index("_")
        rest = " " + d["sentence"][i + 1:].strip()
        o = [d["sentence"][:i] + d["option1"], d["sentence"][:i] + d["option2"]]
        return "schema", [(c, rest) for c in o], o, {"1": 0, "2": 1}[d["answer"]]
    if name == "piqa":
        context, c, gold = f"Question: {d['goal']}\nAnswer:", [d["sol1"], d["sol2"]], d["label"]
    elif name == "boolq":
        context = f"{d['passage']}\nQuestion: {d['question']}?\nAnswer:"
        c, gold = ["no", "yes"], int(d.get("label", d.get("answer")))
    elif name == "copa":
        context, c, gold = copa(d)
    elif name.startswith("storycloze"):
        context, c, gold = story(d)
    elif name == "hellaswag":
        context = clean(d["activity_label"] + ": " + d["ctx_a"] + " " + d["ctx_b"].capitalize())
        c, gold = [clean(x) for x in d["endings"]], int(d["label"])
    elif name == "social_iqa":
        context = f"Q: {d['context']} {d['question']}\nA:"
        c, gold = [d["answer" + x] for x in "ABC"], int(d["label"]) - 1
    else:
        context, c, gold = arc(d, name)
    return "choice", [(context, " " + x) for x in c], c, gold


class Forward:
    def __init__(self, path, c):
        self.path, self.c = path, c

    def run(self, ids):
        out = subprocess.run(["qp-forward", "-q", self.path], check=True, stdout=subprocess.PIPE,
                             input=" ".join(map(str, ids)).encode()).stdout
        u = msgpack.Unpacker(max_buffer_size=0)
        u.feed(out)
        for h in u:
            data = b"".join(next(u) for _ in range(h.get("chunks", 0)))
            if h["t"] == "tensor":
                return None, None, np.frombuffer(data, "<f4").reshape(h["shape"]).astype(float)


class Scorer:
    def __init__(self, path, bos, ctx):
        with open(path + "/config.json") as f:
            c = json.load(f)
        self.path, self.bos = path, bos
        self.model = Llama(path) if c["model_type"] == "llama" else Forward(path, c)
        self.ctx = ctx or c["max_position_embeddings"]
        self.first = c.get("bos_token_id")
        self.tokens = {}

    def encode(self, text, special):
        if (text, special) not in self.tokens:
            out = subprocess.run(["qp-tok", "-m", self.path] + ["--no-special"] * (not special),
                                 input=text.encode(), stdout=subprocess.PIPE, check=True).stdout
            self.tokens[text, special] = [int(i) for i in out.split()]
        return self.tokens[text, special]

    def pair(self, context, continuation):
        special = self.bos != "never"
        n = len(context) - len(context.rstrip())
        if n:
            context, continuation = context[:-n], context[-n:] + continuation
        if not context:
            more = self.encode(continuation, False)
            return ([self.first], more) if more[0] != self.first else (more[:1], more[1:])
        a, whole = self.encode(context, special), self.encode(context + continuation, special)
        if len(whole) <= len(a):    # where the harness gives up
            a = whole[:next(i for i in range(len(whole)) if a[i] != whole[i])]
        return a, whole[len(a):]

    def score(self, context, continuation):
        a, b = self.pair(context, continuation)
        ids = (a + b)[-(self.ctx + 1):]
        logits = self.model.run(ids[:-1])[2][-len(b):]
        top = logits.max(-1, keepdims=True)
        logp = logits - top - np.log(np.exp(logits - top).sum(-1, keepdims=True))
        return logp[np.arange(len(b)), b].sum(), bool((logp.argmax(-1) == b).all())


def main():
    path, log, bos, ctx, limit = sys.argv[1:6]
    scorer, worst, bad, n = Scorer(path, bos, int(ctx)), 0, 0, 0
    got = [json.loads(line) for line in open(log, encoding="utf-8")]
    for arg in sys.argv[6:]:
        name, file = arg.split("=", 1)
        with open(file, encoding="utf-8", newline="") as f:
            docs = list(csv.DictReader(f)) if file.endswith(".csv") else \
                [json.loads(line) for line in f.read().split("\n") if line.strip()]
        for i, d in enumerate(docs[:int(limit) or None]):
            kind, pairs, texts, gold = make(name, d)
            scores = [scorer.score(*p) for p in pairs]
            ll = np.array([s[0] for s in scores])
            g = got[n]
            n += 1
            worst = max(worst, np.abs(ll - np.array(g["ll"])).max())
            want = {"task": name, "sample": i, "ll": g["ll"]}
            if kind == "cloze":
                want["acc"] = int(scores[0][1])
            else:
                want.update(gold=gold, acc=int(ll.argmax() == gold))
            if kind == "choice":
                want["acc_norm"] = int((ll / [len(t) for t in texts]).argmax() == gold)
                want["acc_bytes"] = int((ll / [len(t.encode()) for t in texts]).argmax() == gold)
            if want != g or len(ll) != len(g["ll"]):
                bad += 1
                print("want", want, list(ll), "got", g)
    print("%d samples, largest error %.1e, %d answers differ" % (n, worst, bad))
    sys.exit(0 if n == len(got) > 0 and worst <= 1e-4 and not bad else 1)


main()
