#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""mutate.py SEED COUNT STREAM COMMAND... - senseless streams whose every checksum is right

COUNT mutations of STREAM, the same ones for a seed; each goes as file IN to the COMMANDs, in
turn (one a mutation; all with --all).  A COMMAND is one argument with IN where the stream goes,
OUT where the result goes (a file or a directory that must not be there when it fails), and @FILE
for standard input.  A word that is refused must be refused well: a documented exit status, one
line "program: ...", nothing under OUT, no more than 20 s and 1 GiB.  What offends is printed,
and kept as bad-SEED-N.qp; then the exit status is 1.
"""
import copy
import ctypes
import json
import os
import random
import resource
import shutil
import struct
import subprocess
import sys
import time

import msgpack

xxh = ctypes.CDLL("libxxhash.so.0").XXH3_64bits
xxh.argtypes = [ctypes.c_char_p, ctypes.c_size_t]
xxh.restype = ctypes.c_uint64
STATUSES = {0, 1, 64, 65, 66, 69, 70, 71, 73, 74, 76}
BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "I64": 8, "I32": 4,
         "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1}
TYPES = ["stream", "file", "calib", "block", "block-end", "tensor", "alias", "run", "note", "end",
         "unheard-of"]
ROLES = ["weight", "bias", "stat", "ref", "codes", "scale", "zero", "perm", "comp", "other"]
STATS = ["absmax", "absmean", "min", "max", "hessian", "samples", "other"]
NUMBERS = [0, 1, 2, 3, 5, 7, 8, 16, 17, 31, 64, 127, 128, 255, 256, 65535, 65536, -1, -2, -128,
           1 << 20, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 32, 1 << 40, 1 << 48, (1 << 62) + 1,
           (1 << 63) - 1, 1 << 63, (1 << 64) - 1, -(1 << 31), -(1 << 63)]
FLOATS = [0.0, -0.0, 0.5, 1.0, -1.0, 1e-45, 1e-30, 1e30, 3e38, 1e300, float("inf"),
          float("-inf"), float("nan"), 1e-8, 65504.0, 65520.0, 448.0]
WORDS = ["", "x", "int", "e4m3", "tensor", "token", "group", "dynamic", "static", "quarot", "ct",
         "gptq", "act-quant", "hadamard", "affine", "full", "low-rank", "diagonal", "range", "bits",
         "relu", "silu", "gelu", "llama3", "linear", "yarn", "default", "rope", "none", "F32",
         "a" * 300, "a\nb", "\u00e9\u2028", "../../etc/passwd", "/", ".", "%s%n", "model." * 40,
         "llama", "opt", "qwen2", "qwen2_moe", "qwen3", "vit", "mistral", "layers.0.attn.in",
         "layers.1.mlp.mid", "layers.0.attn.k", "layers.0.attn.v", "layers.0.attn.p",
         "layers.0.attn.q", "layers.0.attn.resid", "layers.0.out", "layers.9.mlp.in",
         "layers.-1.mlp.in", "lm_head.weight", "model.embed_tokens.weight", "model.norm.weight",
         "embed.patch.in", "calib", "config.json", "tokenizer.json"]


class Pairs(list):
    """Pairs to be packed as a map: keys can be there twice, or be anything."""


class Rec:
    """A record: its header as pairs, so that a key can be there twice, and its payload."""

    def __init__(self, head, data=b""):
        self.head, self.data, self.lie = Pairs(head), data, None

    def get(self, key, otherwise=None):
        return next((v for k, v in self.head if k == key), otherwise)

    def set(self, key, value):
        for i, (k, _) in enumerate(self.head):
            if k == key:
                self.head[i] = (key, value)
                return
        self.head.append((key, value))

    def drop(self, key):
        self.head = Pairs((k, v) for k, v in self.head if k != key)


def read(path):
    out = []
    with open(path, "rb") as f:
        values = msgpack.Unpacker(f, raw=False, object_pairs_hook=Pairs, max_buffer_size=1 << 28,
                                  strict_map_key=False)
        for head in values:
            n = dict(head).get("chunks", 0)
            out.append(Rec(head, b"".join(next(values) for _ in range(n))))
    return out


def pack(v):
    if isinstance(v, Pairs):
        return msgpack.Packer().pack_map_header(len(v)) + b"".join(pack(k) + pack(x) for k, x in v)
    if isinstance(v, list):
        return msgpack.Packer().pack_array_header(len(v)) + b"".join(map(pack, v))
    return msgpack.packb(v)


def write(records, sums):
    """With counts, checksums and the end's sum as they should be, but for what was made to lie."""
    out, summed = [], b""
    for n, r in enumerate(records):
        if r.get("t") == "end":
            if sums:
                r.set("records", n)
                r.set("sum", xxh(summed, len(summed)))
            out.append(pack(r.head))
            summed += out[-1]
            continue
        if r.data:
            if r.lie != "nbytes" and not r.get("enc"):
                r.set("nbytes", len(r.data))
            if r.lie != "chunks":
                r.set("chunks", -(-len(r.data) >> 24))
            if r.lie != "xxh":
                r.set("xxh", xxh(r.data, len(r.data)))
        elif r.lie is None:
            for k in ("nbytes", "chunks", "xxh"):
                r.drop(k)
        head = pack(r.head)
        out.append(head)
        summed += head
        for i in range(0, len(r.data), 1 << 24):
            part = r.data[i:i + (1 << 24)]
            prefix = msgpack.packb(part)[:-len(part)]
            out += [prefix, part]
            summed += prefix
    return b"".join(out)


class Mutator:
    def __init__(self, seed, records):
        self.r = random.Random(seed)
        self.whole = records

    def value(self, like=None):
        r = self.r
        if isinstance(like, bool):
            return r.choice([not like, 0, 1, None, "true"])
        if isinstance(like, int) and r.random() < 0.75:
            return r.choice(NUMBERS + [like + 1, like - 1, like * 2, like // 2, -like])
        if isinstance(like, float) and r.random() < 0.75:
            return r.choice(FLOATS)
        if isinstance(like, str) and r.random() < 0.75:
            return r.choice(WORDS + TYPES + ROLES + STATS + [like + "x", like[:-1],
                                                             like.replace("0", "1")])
        return r.choice([None, True, False, [], Pairs(), [[]], [None], Pairs([(1, 2)]), b"\x00\xff",
                         "", r.choice(NUMBERS), r.choice(FLOATS), r.choice(WORDS),
                         [r.choice(NUMBERS) for _ in range(r.randrange(9))],
                         Pairs([(r.choice(WORDS), r.choice(NUMBERS))])])

    def deep(self, v):
        """v with one thing in it changed, however deep."""
        r = self.r
        if not isinstance(v, list) or not v or r.random() < 0.1:
            return self.value(v)
        w = copy.copy(v)
        i, j = r.randrange(len(w)), r.randrange(len(w))
        what = r.random()
        if what < 0.05:
            del w[i]
        elif what < 0.1:
            w.insert(i, w[j])
        elif what < 0.15:
            w[i], w[j] = w[j], w[i]
        elif not isinstance(v, Pairs):
            w[i] = self.deep(w[i])
        elif what < 0.95:
            w[i] = (w[i][0], self.deep(w[i][1]))
        else:
            w[i] = (self.value(w[i][0]), w[i][1])
        return w

    def a_record(self, records, *types):
        some = [x for x in records if not types or x.get("t") in types]
        return self.r.choice(some or records)

    # Each of these changes a list of records in one way.

    def key(self, records):
        x = self.a_record(records)
        head = self.deep(x.head)
        if isinstance(head, Pairs):
            x.head = head

    def known_key(self, records):
        x = self.a_record(records)
        i = self.r.randrange(len(x.head))
        x.head[i] = (x.head[i][0], self.value(x.head[i][1]))

    def lie(self, records):
        x = self.a_record(records, "tensor", "file", "calib", "run")
        x.lie = self.r.choice(["nbytes", "chunks", "xxh"])
        x.set(x.lie, self.value(x.get(x.lie, 1)))

    def header(self, records):
        x = records[0]
        k = self.r.choice(["config", "plan", "family", "v", "prov"])
        x.set(k, self.deep(x.get(k)))

    def shape(self, records):
        """Another shape, with a payload that fits it."""
        r, x = self.r, self.a_record(records, "tensor", "calib")
        s = list(x.get("shape", []) or [])
        what = r.randrange(6)
        if what == 0:
            s.reverse()
        elif what == 1 and s:
            s[r.randrange(len(s))] = r.choice([0, 1, 2, 3, 5, 15, 17, 33, 63, 65, 200])
        elif what == 2:
            s.insert(r.randrange(len(s) + 1), 1)
        elif what == 3 and s:
            s.pop()
        elif what == 4 and s:
            i = r.randrange(len(s))
            s[i] += r.choice([-1, 1])
        else:
            s = [r.choice(NUMBERS) for _ in range(r.randrange(10))]
        x.set("shape", s)
        n = BYTES.get(x.get("dtype"), 1) if isinstance(x.get("dtype"), str) else 1
        for d in s:
            n *= max(d, 0)
        if n <= 1 << 22:
            x.data = (x.data * (n // max(len(x.data), 1) + 1))[:n]
        elif r.random() < 0.7:
            x.data, x.lie = x.data[:1 << 16], "nbytes"
            x.set("nbytes", n)
            x.set("chunks", -(-n >> 24) % (1 << 64))
            x.lie = "chunks" if r.random() < 0.5 else "nbytes"

    def dtype(self, records):
        r, x = self.r, self.a_record(records, "tensor", "calib")
        d = r.choice(list(BYTES) + ["U2", "U3", "U4", "I4", "", "F32 "])
        x.set("dtype", d)
        if isinstance(x.get("shape"), list) and d in BYTES and r.random() < 0.8:
            n = BYTES[d]
            for k in x.get("shape"):
                n *= k if isinstance(k, int) and 0 <= k < 1 << 20 else 1
            x.data = (x.data * (n // max(len(x.data), 1) + 1))[:min(n, 1 << 22)]

    def payload(self, records):
        """Values that a number of this type can have and a model should not."""
        r, x = self.r, self.a_record(records, "tensor", "calib", "run")
        if not x.data:
            return
        d = bytearray(x.data)
        size = BYTES.get(x.get("dtype"), 1) if isinstance(x.get("dtype"), str) else 1
        evil = {4: [struct.pack("<f", f if abs(f) < 4e38 or f != f or f in (FLOATS[10], FLOATS[11])
                                else 3e38) for f in FLOATS] + [struct.pack("<i", -1),
                                                               struct.pack("<i", 1 << 30)],
                2: [b"\x80\x7f", b"\xc0\x7f", b"\x00\x7c", b"\x00\x7e", b"\xff\x7f", b"\0\0",
                    b"\1\0", b"\xff\x7b"]}.get(size, [bytes([v]) * size for v in (0, 1, 127, 128, 255)])
        for _ in range(r.choice([1, 1, 4, len(d) // size])):
            i = r.randrange(len(d) // size) * size
            d[i:i + size] = r.choice(evil)
        if r.random() < 0.2:
            d[:] = r.choice(evil) * (len(d) // size)
        x.data = bytes(d)

    def order(self, records):
        r = self.r
        i, j = r.randrange(len(records)), r.randrange(len(records))
        what = r.randrange(5)
        if what == 0:
            del records[i]
        elif what == 1:
            records.insert(j, copy.deepcopy(records[i]))
        elif what == 2:
            records[i], records[j] = records[j], records[i]
        elif what == 3:
            records.insert(j, records.pop(i))
        else:
            del records[min(i, j):max(i, j)]

    def names(self, records):
        x, y = self.a_record(records, "tensor", "alias"), self.a_record(records, "tensor")
        what = self.r.randrange(3)
        if what != 1:
            x.set("name", y.get("name"))
        if what != 0:
            x.set("role", self.r.choice(ROLES))
        if self.r.random() < 0.2:
            x.set("stat", self.r.choice(STATS))

    def run(self, records):
        """A run record where one may stand, of which one thing may be wrong."""
        r = self.r
        at = [i for i, x in enumerate(records) if x.get("t") == "block"]
        at = (r.choice(at) + 1) if at and r.random() < 0.9 else r.randrange(len(records))
        edge = r.choice(["attn.in", "attn.mid", "mlp.in", "mlp.mid", "attn.k", "attn.v", "attn.q",
                         "attn.p", "attn.k.raw", "attn.resid", "mlp.resid", "out"])
        head = [("t", "run"), ("name", "layers.%d.%s" % (r.choice([0, 0, 1, 7]), edge)),
                ("must", True)]
        kind = r.choice(["act-quant", "hadamard", "affine", "clamp"])
        head += [("kind", kind)]
        if kind == "act-quant":
            head += [("format", r.choice(["int", "e4m3"])), ("bits", r.choice([2, 4, 8])),
                     ("sym", r.random() < 0.5), ("per", r.choice(["tensor", "token", "group"])),
                     ("group", r.choice([4, 8, 16, 5, 1, 64])), ("range", "dynamic"),
                     ("rule", r.choice("quarot gptq awq smoothquant omniquant ostquant awrq fqt ct"
                                       .split()))]
            if r.random() < 0.2:
                head += [("clamp", 8), ("clamp_by", "range"), ("clamp_mid", "ceil")]
            if r.random() < 0.2:
                head += [("recent", r.choice([0, 1, 4, 1 << 40]))]
        elif kind == "hadamard":
            head += [("order", r.choice([1, 2, 4, 8, 12, 16, 32, 3, 1 << 33]))]
        else:
            head += [("form", r.choice(["full", "low-rank", "diagonal"]))]
        new = Rec(head)
        if r.random() < 0.2:
            new.data = struct.pack("<4f", 0.1, 8.0, 0.1, 0.0) * r.choice([1, 2, 3])
            new.head += [("dtype", "F32"), ("shape", [len(new.data) // 8, 2])]
        if r.random() < 0.6:
            i = r.randrange(1, len(new.head))
            new.head[i] = (new.head[i][0], self.value(new.head[i][1]))
        records.insert(at, new)

    def extra(self, records):
        """A note, alias or tensor that nobody asked for."""
        r = self.r
        y = self.a_record(records, "tensor")
        name = r.choice([y.get("name"), r.choice(WORDS)])
        new = r.choice([
            Rec([("t", "note"), ("name", name),
                 ("kind", r.choice(["layer-error", "calibration", "coverage", "clamp", "x"])),
                 ("by", "gptq"), ("bits", self.value(4)), ("rel_err", self.value(0.5))]),
            Rec([("t", "alias"), ("name", name), ("of", self.a_record(records).get("name"))]),
            Rec([("t", "alias"), ("name", name), ("of", name)]),
            Rec([("t", "tensor"), ("name", name), ("role", r.choice(ROLES)), ("dtype", "F32"),
                 ("shape", [2, 2])], b"\0" * 16),
            Rec([("t", "unheard-of"), ("name", name), ("must", r.random() < 0.5)], b"\1\2\3"),
            Rec([("t", "file"), ("name", r.choice(WORDS))], b"{}")])
        records.insert(r.randrange(len(records)), new)

    def file(self, records):
        """What is in a file that travels with the model."""
        r, x = self.r, self.a_record(records, "file")
        if x.get("t") != "file":
            return
        what = r.randrange(4)
        if what == 0:
            x.data = r.choice([b"", b"{}", b"[]", b"null", b"{" * 5000, b"\xff\xfe", b"[" * 100000,
                               b'{"a":1e999}', b'{"\\ud800":1}'])
        elif what == 1:
            x.data = x.data[:r.randrange(len(x.data) + 1)]
        else:
            try:
                v = json.loads(x.data, object_pairs_hook=Pairs)
            except ValueError:
                return
            for _ in range(r.choice([1, 3])):
                v = self.deep(v)
            x.data = json.dumps(unpair(v)).encode()

    def encoding(self, records):
        x = self.a_record(records, "tensor", "file")
        x.set("enc", self.r.choice(["zstd", "zstd-planes", "unheard-of", "", 5]))
        if self.r.random() < 0.3:
            x.data = b"\x28\xb5\x2f\xfd" + x.data

    def attribute(self, records):
        """What codes and statistics say of themselves."""
        r = self.r
        some = [x for x in records if x.get("role") in ("codes", "stat", "scale", "zero")]
        x = r.choice(some) if some else self.a_record(records, "tensor")
        k = r.choice(["bits", "group", "sym", "width", "tokens", "stat", "tall", "format", "grid"])
        if r.random() < 0.2:
            x.drop(k)
        else:
            x.set(k, self.value(x.get(k, r.choice([1, True, "int"]))))

    def mutated(self):
        records = copy.deepcopy(self.whole)
        ways = [self.key, self.known_key, self.lie, self.header, self.header, self.shape,
                self.shape, self.dtype, self.payload, self.payload, self.order, self.order,
                self.names, self.run, self.extra, self.file, self.encoding, self.attribute,
                self.attribute]
        done = []
        for _ in range(self.r.choice([1, 1, 1, 2, 3])):
            way = self.r.choice(ways)
            if len(records) > 1:
                way(records)
            done.append(way.__name__)
        try:
            return write(records, self.r.random() < 0.98), "+".join(done)
        except (TypeError, ValueError, OverflowError):   # a header that msgpack cannot write
            return None, ""


def unpair(v):
    if isinstance(v, Pairs):
        return {str(k): unpair(x) for k, x in v}
    if isinstance(v, list):
        return [unpair(x) for x in v]
    return v.hex() if isinstance(v, bytes) else v


def attempt(command, data):
    """What is wrong with how COMMAND takes the stream: "" if nothing, and its exit status."""
    with open("IN", "wb") as f:
        f.write(data)
    words = command.split()
    stdin = "/dev/null"
    if words[-1].startswith("@"):
        stdin = words.pop()[1:]

    def limits():
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    err = open("ERR", "w+b")
    with open(stdin, "rb") as fin, open("STDOUT", "wb") as fout:
        p = subprocess.Popen(words, stdin=fin, stdout=fout, stderr=err, preexec_fn=limits)
    end = time.time() + 20
    while True:
        pid, st, use = os.wait4(p.pid, os.WNOHANG)
        if pid:
            break
        if time.time() > end:
            p.kill()
            os.wait4(p.pid, 0)
            p.returncode = -9
            return "hangs", None, b""
        time.sleep(0.002)
    p.returncode = rc = os.waitstatus_to_exitcode(st)
    err.seek(0)
    said = err.read()
    wrong = ""
    if rc not in STATUSES:
        wrong = "exit status %d" % rc
    elif rc == 70:
        wrong = "internal error"
    elif use.ru_maxrss > 1 << 20:
        wrong = "peak %d MiB" % (use.ru_maxrss >> 10)
    elif rc > 1 and (said.count(b"\n") != 1 or not said.startswith(words[0].encode() + b": ")
                     or len(said) > 1200 or any(c < 32 for c in said[:-1])):
        wrong = "not one clear line"
    elif rc and os.path.lexists("OUT"):
        wrong = "left an output"
    elif any(n.startswith((".OUT", "OUT.", ".")) for n in os.listdir(".")):
        wrong = "left a temporary file"
    for n in os.listdir("."):
        if n == "OUT" or n.startswith((".", "OUT.")):
            (shutil.rmtree if os.path.isdir(n) and not os.path.islink(n) else os.unlink)(n)
    return wrong, rc, said


def main():
    every = "--all" in sys.argv
    args = [a for a in sys.argv[1:] if a != "--all"]
    seed, count, stream, commands = int(args[0]), int(args[1]), args[2], args[3:]
    m = Mutator(seed, read(stream))
    seen, bad, n = {}, 0, 0
    whole = write(copy.deepcopy(m.whole), True)
    for c in commands:
        wrong, rc, said = attempt(c, whole)
        if wrong or rc not in (0, 1):
            print("as it is: %s: %s (%s)\n%s" % (c, wrong, rc, said.decode(errors="replace")))
            bad += 1
    for i in range(count):
        data, how = m.mutated()
        if data is None:
            continue
        for c in commands if every else [commands[i % len(commands)]]:
            n += 1
            wrong, rc, said = attempt(c, data)
            if os.environ.get("MUTATE_LOG"):
                with open(os.environ["MUTATE_LOG"], "ab") as f:
                    f.write(b"%s\t%s\t%s\t%s" % (str(rc).encode(), c.split()[0].encode(), how.encode(),
                                                said or b"\n"))
            key = (c, wrong, said[:40])
            seen[rc] = seen.get(rc, 0) + 1
            if wrong:
                bad += 1
                if key not in seen:
                    seen[key] = 1
                    name = "bad-%d-%d.qp" % (seed, i)
                    with open(name, "wb") as f:
                        f.write(data)
                    print("%s: %s: %s (status %s; %s)\n%s" % (name, c, wrong, rc, how,
                          said[:3000].decode(errors="replace")), flush=True)
    print("%d runs, %d bad; statuses %s" % (n, bad, {k: v for k, v in seen.items()
                                                     if not isinstance(k, tuple)}))
    # Mutations that everybody takes, or nobody, prove nothing.
    sys.exit(bad > 0 or (n > 50 and not (seen.get(0) or seen.get(1))) or (n > 50 and not seen.get(65)))


if __name__ == "__main__":
    main()
