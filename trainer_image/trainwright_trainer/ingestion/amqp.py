"""What we need of an AMQP 1.0 message, its data and its properties, read without trusting a byte of it.

The library's own decoder makes room for as many elements as a message says it has: one of twenty bytes may
say four thousand million, and take all of the machine's memory.
"""

from __future__ import annotations

from typing import Any

_PROPERTIES, _DATA, _VALUE = 0x74, 0x75, 0x77
_MAPS = {0xC1: 1, 0xD1: 4}  # the constructors, and how wide their size and count are
_CONSTANTS: dict[int, Any] = {0x40: None, 0x41: True, 0x42: False, 0x43: 0, 0x44: 0, 0x45: None}
_WIDTHS = {4: 0, 5: 1, 6: 2, 7: 4, 8: 8, 9: 16}  # of values, by the high half of their constructor
_LENGTHS = {0xA: 1, 0xB: 4, 0xC: 1, 0xD: 4, 0xE: 1, 0xF: 4}  # of the lengths of values that have one
_BINARY = (0xA, 0xB)
_SIGNED = frozenset({0x51, 0x54, 0x55, 0x61, 0x71, 0x81, 0x83})
_UNSIGNED = frozenset({0x50, 0x52, 0x53, 0x60, 0x70, 0x80})
_BOOLEAN = 0x56


def read_amqp(data: bytes) -> tuple[bytes, dict[Any, Any]]:
    """Return the data of a message and its application properties; raise `ValueError` for anything else."""
    parts: list[bytes] = []
    properties: dict[Any, Any] = {}
    position = 0
    while position < len(data):
        if data[position] != 0:
            raise ValueError("it is no sequence of sections")
        section, position = _read_value(data, position + 1)
        if section == _PROPERTIES and position < len(data) and data[position] in _MAPS:
            properties, position = _read_map(data, position)
            continue
        value, position = _read_value(data, position)
        if section in {_DATA, _VALUE}:
            if not isinstance(value, bytes):
                raise ValueError("its body is no data")
            parts.append(value)
    return b"".join(parts), properties


def _read_map(data: bytes, position: int) -> tuple[dict[Any, Any], int]:
    """Return a map of simple values, and where it ends."""
    width = _MAPS[data[position]]
    start = position + 1 + width
    end = start + int.from_bytes(data[position + 1 : start], "big")
    if end > len(data):
        raise ValueError("it is cut off")
    count = int.from_bytes(data[start : start + width], "big")
    found: dict[Any, Any] = {}
    position = start + width
    for _ in range(count // 2):
        key, position = _read_value(data, position)
        value, position = _read_value(data, position)
        if position > end:
            raise ValueError("a map is longer than it says")
        found[key] = value
    return found, end


def _read_value(data: bytes, position: int) -> tuple[Any, int]:
    """Return a simple value, None for a compound one, and where it ends."""
    if position >= len(data):
        raise ValueError("it is cut off")
    constructor = data[position]
    position += 1
    if constructor in _CONSTANTS:
        return _CONSTANTS[constructor], position
    kind = constructor >> 4
    if kind in _LENGTHS:
        start = position + _LENGTHS[kind]
        end = start + int.from_bytes(data[position:start], "big")
    elif kind in _WIDTHS:
        start, end = position, position + _WIDTHS[kind]
    else:
        raise ValueError("it has a value of no known kind")
    if end > len(data):
        raise ValueError("it is cut off")
    return _convert(constructor, data, start, end), end


def _convert(constructor: int, data: bytes, start: int, end: int) -> Any:
    if constructor >> 4 in _BINARY:
        return bytes(data[start:end])
    if constructor in _SIGNED or constructor in _UNSIGNED:
        return int.from_bytes(data[start:end], "big", signed=constructor in _SIGNED)
    return bool(data[start]) if constructor == _BOOLEAN else None
