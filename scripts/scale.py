#!/usr/bin/env python3
"""What one gateway carries, and what many of them do to one Kafka cluster: the figures of docs/scale.md.

  scripts/scale.py              prints the tables
  scripts/scale.py --quick      with smaller simulations; never for the document
  scripts/scale.py --docs       writes them between their markers in docs/scale.md
  scripts/scale.py --check      says whether the document has them as they are now
  scripts/scale.py --self-test  holds the model against cases worked out by hand

Python's standard library only. Every simulation is seeded, so the same inputs give the same tables. What is printed has
what the benches measured last on this machine (target/gateway.json); the document has the constants alone, so that it
is the same on every machine. The model is in scripts/scale_model; this file only prints and writes. It talks to no gateway and to no broker.
"""

import argparse
import re
import signal
import sys
import unittest

# No folders of compiled files in the source tree.
sys.dont_write_bytecode = True

from scale_model import inputs, tables  # noqa: E402

DOCUMENT = inputs.ROOT / "docs" / "scale.md"


def main():
    # Whoever reads no further, `head` for instance, ends it without a word.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    options = arguments()
    if options.self_test:
        from scale_model import self_test

        suite = unittest.defaultTestLoader.loadTestsFromModule(self_test)
        return not unittest.TextTestRunner().run(suite).wasSuccessful()
    box, found = (inputs.constants(), []) if options.docs or options.check else inputs.load()
    made = {name: of(box, found, options.quick) for name, of in tables.TABLES.items()}
    if not (options.docs or options.check):
        for name, text in made.items():
            print(f"{name}\n\n{text}\n")
        return False
    before = DOCUMENT.read_text()
    after = written(before, made)
    if options.docs:
        DOCUMENT.write_text(after)
        return False
    if before != after:
        print("docs/scale.md has other tables; run scripts/scale.py --docs", file=sys.stderr)
    return before != after


def arguments():
    parser = argparse.ArgumentParser(description="The figures of docs/scale.md.")
    parser.add_argument("--quick", action="store_true", help="smaller simulations")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--docs", action="store_true", help="write the tables into docs/scale.md")
    what.add_argument("--check", action="store_true", help="compare docs/scale.md with the tables")
    what.add_argument("--self-test", action="store_true", help="test the model")
    options = parser.parse_args()
    if options.quick and (options.docs or options.check):
        parser.error("the document has the full simulations; leave --quick out")
    return options


def written(text, made):
    """The document with each table between its markers. Markers and tables that have no counterpart are a mistake."""
    marked = re.findall(r"<!-- ([a-z]+) -->", text)
    if sorted(marked) != sorted(made):
        sys.exit(f"docs/scale.md: markers and tables differ: {sorted(set(marked) ^ set(made))}")
    for name, content in made.items():
        # A function, because a table may hold what a replacement text would take for its own.
        pattern = rf"<!-- {name} -->.*?<!-- /{name} -->"
        replaced, count = re.subn(pattern, lambda _: f"<!-- {name} -->\n{content}\n<!-- /{name} -->", text, flags=re.S)
        if count != 1:
            sys.exit(f"docs/scale.md: <!-- {name} --> has no end, or stands there twice")
        text = replaced
    return text


if __name__ == "__main__":
    sys.exit(main())
