"""QR codes for a terminal: byte mode, error correction level L, versions 1 to 6 (134 bytes).

ISO/IEC 18004. Coordinates are (row, column). A link to this machine fits into version 3 or 4, so
what larger versions need besides (version information, more alignment patterns) is left out.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from rorqual.errors import ConfigError

# Version: (blocks, data bytes of each, correction bytes of each).
_BLOCKS: Final = {
    1: (1, 19, 7),
    2: (1, 34, 10),
    3: (1, 55, 15),
    4: (1, 80, 20),
    5: (1, 108, 26),
    6: (2, 68, 18),
}
_FORMAT_GENERATOR: Final = 0x537
_FORMAT_MASK: Final = 0x5412
_FIELD: Final = 0x11D
_MASKS: Final = (
    lambda r, c: (r + c) % 2,
    lambda r, c: r % 2,
    lambda r, c: c % 3,
    lambda r, c: (r + c) % 3,
    lambda r, c: (r // 2 + c // 3) % 2,
    lambda r, c: r * c % 2 + r * c % 3,
    lambda r, c: (r * c % 2 + r * c % 3) % 2,
    lambda r, c: ((r + c) % 2 + r * c % 3) % 2,
)
Grid = list[list[bool]]


def qr_code(text: str) -> Grid:
    """The modules of a code, without the quiet zone: [row][column], True is dark."""
    data = text.encode()
    version = next((v for v, (n, size, _) in _BLOCKS.items() if len(data) + 2 <= n * size), None)
    if version is None:
        raise ConfigError(f"{len(data)} bytes do not fit into a QR code of version 6; at most 134")
    drawn, fixed = _patterns(version)
    bits = _bits(_codewords(data, version))
    for row, column in _places(len(drawn)):
        if not fixed[row][column]:
            drawn[row][column] = next(bits, False)
    tried = (_masked(drawn, fixed, mask) for mask in range(len(_MASKS)))
    return min(tried, key=_penalty)


def terminal_text(code: Grid) -> str:
    """Two rows of modules a line, dark on white whatever the terminal's colours."""
    quiet, size = 3, len(code) + 6
    rows = [[False] * size for _ in range(size + size % 2)]
    for r, line in enumerate(code):
        rows[r + quiet][quiet : quiet + len(line)] = line
    marks = {(False, False): " ", (True, False): "▀", (False, True): "▄", (True, True): "█"}
    pairs = zip(rows[::2], rows[1::2], strict=True)
    lines = ("".join(map(marks.__getitem__, zip(*pair, strict=True))) for pair in pairs)
    return "\n".join(f"\x1b[30;107m{line}\x1b[0m" for line in lines)


def _codewords(data: bytes, version: int) -> bytes:
    """Mode, length, data and padding in blocks, each with its correction bytes, interleaved."""
    num_blocks, size, num_correction = _BLOCKS[version]
    head = (0b0100 << 8 | len(data)) << (8 * len(data)) | int.from_bytes(data)
    stream = (head << 4).to_bytes(len(data) + 2)  # the terminator fills the last half byte
    padding = num_blocks * size - len(stream)
    stream += (b"\xec\x11" * padding)[:padding]
    blocks = [stream[at : at + size] for at in range(0, len(stream), size)]
    correction = [_correction(block, num_correction) for block in blocks]
    return bytes(byte for part in (blocks, correction) for row in zip(*part, strict=True)
                 for byte in row)  # fmt: skip


def _times(a: int, b: int) -> int:
    """Product in the field of 256 elements."""
    product = 0
    while b:
        product ^= a * (b & 1)
        a, b = a << 1 ^ (a >> 7) * _FIELD, b >> 1
    return product


def _correction(block: bytes, count: int) -> bytes:
    """The remainder of the block by the product of (x - 2^k), k below count."""
    generator, root = [1], 1
    for _ in range(count):
        longer = [*generator, 0]
        for at, value in enumerate(generator):
            longer[at + 1] ^= _times(value, root)
        generator, root = longer, _times(root, 2)
    rest = [*block, *[0] * count]
    for at in range(len(block)):
        factor = rest[at]
        for offset, value in enumerate(generator):
            rest[at + offset] ^= _times(value, factor)
    return bytes(rest[-count:])


def _bits(data: bytes) -> Iterator[bool]:
    return (bool(byte >> bit & 1) for byte in data for bit in range(7, -1, -1))


def _places(size: int) -> Iterator[tuple[int, int]]:
    """Pairs of columns from the right, upwards and downwards in turn, without the timing column."""
    upwards = True
    for right in [*range(size - 1, 6, -2), 5, 3, 1]:
        for row in range(size - 1, -1, -1) if upwards else range(size):
            yield row, right
            yield row, right - 1
        upwards = not upwards


def _patterns(version: int) -> tuple[Grid, Grid]:
    """What every code of a version has, and where it is; the format's place is kept free."""
    size = 17 + 4 * version
    drawn: Grid = [[False] * size for _ in range(size)]
    fixed: Grid = [[False] * size for _ in range(size)]

    def put(row: int, column: int, dark: bool) -> None:
        if 0 <= row < size and 0 <= column < size:
            drawn[row][column], fixed[row][column] = dark, True

    for at in range(size):
        put(6, at, at % 2 == 0)
        put(at, 6, at % 2 == 0)
    for middle_row, middle_column in ((3, 3), (3, size - 4), (size - 4, 3)):
        for r in range(-4, 5):
            for c in range(-4, 5):
                put(middle_row + r, middle_column + c, max(abs(r), abs(c)) not in (2, 4))
    if version > 1:
        middle = 4 * version + 10
        for r in range(-2, 3):
            for c in range(-2, 3):
                put(middle + r, middle + c, max(abs(r), abs(c)) != 1)
    for places in _format_places(size):
        for row, column in places:
            put(row, column, False)
    put(size - 8, 8, True)
    return drawn, fixed


def _format_places(size: int) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Where bits 0 to 14 of the format stand, twice."""
    first = [(row, 8) for row in (0, 1, 2, 3, 4, 5, 7, 8)]
    first += [(8, column) for column in (7, 5, 4, 3, 2, 1, 0)]
    second = [(8, size - 1 - at) for at in range(8)]
    second += [(size - 15 + at, 8) for at in range(8, 15)]
    return first, second


def _masked(drawn: Grid, fixed: Grid, mask: int) -> Grid:
    """The data turned over where the mask says so, and the format that tells which mask it was."""
    rule = _MASKS[mask]
    code = [
        [dark if fixed[r][c] else dark ^ (rule(r, c) == 0) for c, dark in enumerate(row)]
        for r, row in enumerate(drawn)
    ]
    kind = 0b01 << 3 | mask  # level L
    rest = kind
    for _ in range(10):
        rest = rest << 1 ^ (rest >> 9) * _FORMAT_GENERATOR
    bits = (kind << 10 | rest) ^ _FORMAT_MASK
    for places in _format_places(len(code)):
        for at, (row, column) in enumerate(places):
            code[row][column] = bool(bits >> at & 1)
    return code


def _penalty(code: Grid) -> int:
    """How hard a code is to read: runs, blocks, likeness of a finder pattern, imbalance."""
    size, total = len(code), 0
    for lines in (code, list(zip(*code, strict=True))):
        total += sum(map(_line_penalty, lines))
    for r in range(size - 1):
        for c in range(size - 1):
            total += 3 * (code[r][c] == code[r + 1][c] == code[r][c + 1] == code[r + 1][c + 1])
    dark = sum(map(sum, code))
    return total + 10 * (abs(20 * dark - 10 * size * size) // (size * size))


def _line_penalty(line: Sequence[bool]) -> int:
    text = "".join("01"[dark] for dark in line)
    runs = text.replace("01", "0 1").replace("10", "1 0").split()
    total = sum(len(run) - 2 for run in runs if len(run) >= 5)
    for like in ("10111010000", "00001011101"):
        total += 40 * sum(text.startswith(like, at) for at in range(len(text)))
    return total
