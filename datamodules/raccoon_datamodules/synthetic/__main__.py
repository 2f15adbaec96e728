"""Draw a contact sheet: ``python -m raccoon_datamodules.synthetic --out sheet.png --seeds 12 --difficulty easy``."""

import argparse

import cv2

from raccoon_datamodules.synthetic.generate import make_sample
from raccoon_datamodules.synthetic.sheet import contact_sheet


def main() -> None:
    """Draw the samples of the first seeds as rows of frames into a PNG."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", required=True, help="PNG to write")
    parser.add_argument("--seeds", type=int, default=12, help="how many samples (12)")
    parser.add_argument("--first", type=int, default=0, help="the first seed (0)")
    parser.add_argument("--difficulty", default="easy", help="easy, medium or hard (easy)")
    parser.add_argument("--height", type=int, default=64, help="frame height in pixels (64)")
    parser.add_argument("--width", type=int, default=64, help="frame width in pixels (64)")
    parser.add_argument("--frames", type=int, default=6, help="frames shown of each (6)")
    parser.add_argument("--zoom", type=int, default=1, help="enlargement (1)")
    parser.add_argument("--outlined", action="store_true", help="draw the masks' outlines")
    options = parser.parse_args()
    samples = [
        make_sample(seed, options.difficulty, size=(options.height, options.width), inpainted=False)
        for seed in range(options.first, options.first + options.seeds)
    ]
    sheet = contact_sheet(samples, frames=options.frames, zoom=options.zoom, outlined=options.outlined)
    if not cv2.imwrite(options.out, sheet[..., ::-1]):
        raise SystemExit(f"cannot write {options.out}")


if __name__ == "__main__":
    main()
