"""``python -m rf8.train.texts``: the default model's text as files, for calibration and evaluation.

Writes ``calibration.txt``, the middle of every training document, and ``held-out.txt``.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rf8.errors import DataError
from rf8.files import replaced_file
from rf8.train.data import corpus

MIDDLE = 1500  # characters of each document: enough for calibration, and of every kind


def main() -> int:
    """Write the files; 1 where the text is not to be had."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("build/data"), help="where the text is")
    options = parser.parse_args()
    try:
        train, held_out = corpus(options.data)
        middles = [d.text[max(0, len(d.text) - MIDDLE) // 2 :][:MIDDLE] for d in train]
        for name, texts in (("calibration", middles), ("held-out", [d.text for d in held_out])):
            path = options.data / f"{name}.txt"
            with replaced_file(path) as temporary:
                temporary.write_text("\n".join(texts))
            print(f"wrote {path}")
    except DataError as error:
        print(f"rf8.train.texts: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
