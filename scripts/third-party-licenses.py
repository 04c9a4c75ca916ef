#!/usr/bin/env python3
"""Writes the names, versions, licences and notices of everything that is linked into the program.

  scripts/third-party-licenses.py TARGET OUT.gz     TARGET as rustc names it, for example aarch64-unknown-linux-gnu

The sources have to be there: run it after a build. The same lock file gives the same bytes.
"""

import gzip
import json
import pathlib
import subprocess
import sys

target, out = sys.argv[1:]
metadata = json.loads(
    subprocess.check_output(
        ["cargo", "metadata", "--format-version", "1", "--locked", "--offline", "--filter-platform", target]
    )
)
packages = {package["id"]: package for package in metadata["packages"]}
nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}

# What the program reaches without build and test dependencies, and without macros, which stay in the compiler.
linked, ahead = set(), [metadata["resolve"]["root"]]
while ahead:
    at = ahead.pop()
    if at in linked or any("proc-macro" in target["kind"] for target in packages[at]["targets"]):
        continue
    linked.add(at)
    ahead += [
        dep["pkg"] for dep in nodes[at]["deps"] if any(kind["kind"] is None for kind in dep["dep_kinds"])
    ]
linked.discard(metadata["resolve"]["root"])

lines, texts = [], {}
for package in sorted((packages[at] for at in linked), key=lambda package: (package["name"], package["version"])):
    name = f'{package["name"]} {package["version"]}'
    lines.append(f'{name}: {package["license"] or "see its notice below"}')
    folder = pathlib.Path(package["manifest_path"]).parent
    # The C libraries are in folders of their own inside their crates.
    for found in sorted(
        path
        for pattern in ("LICEN[CS]E*", "COPYING*", "COPYRIGHT*", "NOTICE*")
        for inside in (folder, *folder.glob("librdkafka"), *folder.glob("aws-lc"))
        for path in inside.glob(pattern)
        if path.is_file()
    ):
        text = found.read_text(encoding="utf-8", errors="replace").strip()
        texts.setdefault(text, []).append(name)

parts = ["What is linked into waystation, and under which licences.\n\n" + "\n".join(lines) + "\n"]
for text, names in texts.items():
    parts.append("\n" + "=" * 79 + "\n" + ", ".join(dict.fromkeys(names)) + "\n\n" + text + "\n")
with open(out, "wb") as file, gzip.GzipFile("", "wb", 9, file, 0) as packed:
    packed.write("".join(parts).encode())
