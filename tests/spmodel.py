#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""spmodel.py OUT [key=value ...] [PIECE:SCORE:TYPE ...] - write a SentencePiece model by hand.

Keys are fields of its messages by name (FIELDS below), hex:FIELD=... raw bytes.  Pieces come after
<unk>, <s>, </s>; TYPE is a number, 1 (normal) unless given.
"""
import struct
import sys

FIELDS = {  # name: (message of ModelProto, field)
    "model_type": (2, 3), "suffix": (2, 24), "byte_fallback": (2, 35), "bos_id": (2, 41),
    "eos_id": (2, 42), "charsmap": (3, 2), "prefix": (3, 3), "trim": (3, 4), "escape": (3, 5),
    "denormal": (5, 2), "normalizer9": (3, 9), "model9": (0, 9),
}


def varint(v):
    out = b""
    v &= (1 << 64) - 1
    while v >= 0x80:
        out += bytes([v & 0x7f | 0x80])
        v >>= 7
    return out + bytes([v])


def field(number, v):
    if isinstance(v, bytes):
        return varint(number << 3 | 2) + varint(len(v)) + v
    return varint(number << 3) + varint(v)


def piece(text, score, kind):
    return field(1, field(1, text) + varint(2 << 3 | 5) + struct.pack("<f", score) + field(3, kind))


def main():
    pieces = [(b"<unk>", 0.0, 2), (b"<s>", 0.0, 3), (b"</s>", 0.0, 3)]
    messages = {0: b"", 2: b"", 3: b"", 5: b""}
    for arg in sys.argv[2:]:
        key, _, value = arg.partition("=")
        if key in FIELDS:
            message, number = FIELDS[key]
            value = bytes.fromhex(value[2:]) if value.startswith("0x") else int(value)
            messages[message] += field(number, value)
        elif key == "bytes":
            pieces += [(b"<0x%02X>" % b, 0.0, 6) for b in range(int(value))]
        elif key == "drop":
            del pieces[int(value)]
        else:
            text, score, kind = (arg.split(":") + ["1"])[:3]
            pieces.append((text.encode(errors="surrogateescape"), float(score), int(kind)))
    with open(sys.argv[1], "wb") as f:
        f.write(b"".join(piece(*p) for p in pieces))
        f.write(b"".join(field(k, v) for k, v in messages.items() if k and v) + messages[0])


main()
