"""Writes the pictures of crates/vision/tests/data that Rust's encoders cannot make.

    pip install pillow
    python scripts/goldens/pictures.py

- cmyk.jpg: four flat blocks of 16×16 pixels, in CMYK with Adobe's marker (values stored inverted):
  cyan, magenta, yellow, and black ink at a half.
- dot.webp: an animation of three frames of 2×1 pixels, 250 ms each: red red, red green, blue red.

Prints the colours that Pillow reads back as RGB.
"""

from pathlib import Path

from PIL import Image, ImageSequence

DATA = Path(__file__).resolve().parents[2] / "crates/vision/tests/data"
INKS = [(255, 0, 0, 0), (0, 255, 0, 0), (0, 0, 255, 0), (0, 0, 0, 128)]
RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
FRAMES = [(RED, RED), (RED, GREEN), (BLUE, RED)]


def cmyk_jpeg(path: Path) -> None:
    picture = Image.new("CMYK", (64, 16))
    for i, ink in enumerate(INKS):
        picture.paste(ink, (16 * i, 0, 16 * i + 16, 16))
    picture.save(path, "JPEG", quality=95, subsampling=0)
    rgb = Image.open(path).convert("RGB")
    print(path.name, path.stat().st_size, [rgb.getpixel((16 * i + 8, 8)) for i in range(4)])


def animated_webp(path: Path) -> None:
    frames = []
    for colors in FRAMES:
        frame = Image.new("RGB", (2, 1))
        frame.putdata(colors)
        frames.append(frame)
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=250, lossless=True)
    read = [list(f.convert("RGB").getdata()) for f in ImageSequence.Iterator(Image.open(path))]
    print(path.name, path.stat().st_size, read)


if __name__ == "__main__":
    cmyk_jpeg(DATA / "cmyk.jpg")
    animated_webp(DATA / "dot.webp")
