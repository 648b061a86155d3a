#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""breakmodel.py DIR FAULT [ARG...] - change a model directory in one way, mostly for the worse

In model.safetensors:
  rename OLD NEW | drop NAME | dtype NAME DTYPE | shape NAME N,M   what the header says
  add NAME                 one more tensor, two zeros
  value NAME INDEX WORD    one element: nan, inf, -inf or a number (F32, BF16)
  offsets NAME BEGIN END   added to its data_offsets
  split N                  into N shards and an index: not damage, another shape
  overlap | hole | outside | duplicate | trailing | truncated | huge-header | no-header
Elsewhere:
  config KEY JSON          a key of config.json (null: removed)
  remap NAME FILE          what the index says of a tensor ("": nothing)
"""
import json
import os
import struct
import sys


class Weights:
    def __init__(self, path):
        self.path = path
        with open(path, "rb") as f:
            n = struct.unpack("<Q", f.read(8))[0]
            self.head = json.loads(f.read(n))
            self.data = bytearray(f.read())

    def write(self, text=None, length=None):
        text = json.dumps(self.head).encode() if text is None else text
        with open(self.path, "wb") as f:
            f.write(struct.pack("<Q", len(text) if length is None else length))
            f.write(text + self.data)

    def names(self):
        """In the order of their data."""
        named = [k for k in self.head if k != "__metadata__"]
        return sorted(named, key=lambda k: self.head[k]["data_offsets"])


def drop(w, name):
    """The tensor and its data: what follows moves up."""
    begin, end = w.head.pop(name)["data_offsets"]
    del w.data[begin:end]
    for t in w.names():
        w.head[t]["data_offsets"] = [x - (end - begin) * (x >= end)
                                     for x in w.head[t]["data_offsets"]]


def value(w, name, index, word):
    t = w.head[name]
    size = {"F32": 4, "BF16": 2}[t["dtype"]]
    at = t["data_offsets"][0] + int(index) * size
    w.data[at:at + size] = struct.pack("<f", float(word))[4 - size:]


def shift(w, name, begin, end=None):
    o = w.head[name]["data_offsets"]
    w.head[name]["data_offsets"] = [o[0] + begin, o[1] + (begin if end is None else end)]


def split(w, count):
    folder = os.path.dirname(w.path)
    names, index = w.names(), {}
    for i in range(count):
        file = "model-%05d-of-%05d.safetensors" % (i + 1, count)
        part = Weights(w.path)
        part.path = os.path.join(folder, file)
        for k in names:
            if names.index(k) * count // len(names) == i:
                index[k] = file
            else:
                drop(part, k)
        part.write()
    os.remove(w.path)
    with open(os.path.join(folder, "model.safetensors.index.json"), "w") as f:
        json.dump({"metadata": {"total_size": len(w.data)}, "weight_map": index}, f)


def header(w, fault, args):
    first, last = w.names()[0], w.names()[-1]
    text = length = None
    if fault == "rename":
        w.head[args[1]] = w.head.pop(args[0])
    elif fault == "drop":
        drop(w, args[0])
    elif fault == "dtype":
        w.head[args[0]]["dtype"] = args[1]
    elif fault == "shape":
        w.head[args[0]]["shape"] = [int(x) for x in args[1].split(",")]
    elif fault == "add":
        n = len(w.data)
        w.head[args[0]] = {"dtype": "F32", "shape": [2], "data_offsets": [n, n + 8]}
        w.data += bytes(8)
    elif fault == "value":
        value(w, *args)
    elif fault == "offsets":
        shift(w, args[0], int(args[1]), int(args[2]))
    elif fault == "split":
        return split(w, int(args[0]))
    elif fault == "overlap":
        shift(w, last, -2)
        del w.data[-2:]
    elif fault == "hole":
        shift(w, last, 2)
        w.data += bytes(2)
    elif fault == "outside":
        shift(w, last, 1000000000)
    elif fault == "trailing":
        w.data += b"abc"
    elif fault == "truncated":
        del w.data[-5:]
    elif fault == "duplicate":
        one = json.dumps(w.head)
        text = (one[:-1] + ', "%s": %s}' % (first, json.dumps(w.head[first]))).encode()
    elif fault == "huge-header":
        length = 1 << 60
    elif fault == "no-header":
        text = b""
    else:
        sys.exit(__doc__)
    w.write(text, length)


def edit(path, change):
    with open(path) as f:
        tree = json.load(f)
    change(tree)
    with open(path, "w") as f:
        json.dump(tree, f, indent=1)


def main():
    where, fault, args = sys.argv[1], sys.argv[2], sys.argv[3:]
    if fault == "config":
        def change(tree):
            tree[args[0]] = json.loads(args[1])
            if tree[args[0]] is None:
                del tree[args[0]]
        edit(os.path.join(where, "config.json"), change)
    elif fault == "remap":
        def change(tree):
            tree["weight_map"].pop(args[0], None)
            if args[1]:
                tree["weight_map"][args[0]] = args[1]
        edit(os.path.join(where, "model.safetensors.index.json"), change)
    else:
        header(Weights(os.path.join(where, "model.safetensors")), fault, args)


main()
