"""Writes crates/vision/tests/data/cmyk.jpg: a picture that Rust's encoders cannot make.

    pip install pillow
    python scripts/goldens/cmyk_jpeg.py

Four flat blocks of 16×16 pixels, in CMYK with Adobe's marker (values stored inverted): cyan, magenta,
yellow, and black ink at a half. Prints the colours that Pillow reads back as RGB.
"""

from pathlib import Path

from PIL import Image

OUT = Path(__file__).resolve().parents[2] / "crates/vision/tests/data/cmyk.jpg"
INKS = [(255, 0, 0, 0), (0, 255, 0, 0), (0, 0, 255, 0), (0, 0, 0, 128)]


def main() -> None:
    picture = Image.new("CMYK", (64, 16))
    for i, ink in enumerate(INKS):
        picture.paste(ink, (16 * i, 0, 16 * i + 16, 16))
    picture.save(OUT, "JPEG", quality=95, subsampling=0)
    rgb = Image.open(OUT).convert("RGB")
    print(OUT.stat().st_size, [rgb.getpixel((16 * i + 8, 8)) for i in range(4)])


if __name__ == "__main__":
    main()
