"""Pascal VOC: an XML file for each image, with classes by name and boxes in pixels."""

from __future__ import annotations

from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from trainwright_trainer.annotations.items import Label, Picture, Rule, Rules, UnfitError
from trainwright_trainer.annotations.labels import (
    MOST_LABEL_BYTES,
    Box,
    Problem,
    Row,
    check_boxes,
    check_frame,
    read_class_name,
    read_numbers,
)

_CORNERS = ("xmin", "ymin", "xmax", "ymax")


def read_pascal_voc(data: bytes, picture: Picture, rules: Rules) -> Label:
    """Return the boxes of an XML file; its numbers are taken as the edges of the box."""
    if len(data) > MOST_LABEL_BYTES:
        raise UnfitError(Rule.LABEL_TOO_LARGE, f"label is larger than {MOST_LABEL_BYTES} bytes")
    root = _parse(data)
    declared = root.find("size")
    if declared is not None:
        check_frame(picture, declared.findtext("width"), declared.findtext("height"))
    rows = (
        (f"object {number}", _read_object(found, picture, rules))
        for number, found in enumerate(root.iterfind("object"), start=1)
    )
    return check_boxes(rows, rules.class_ids)


def _parse(data: bytes) -> Element:
    try:
        root: Element = fromstring(data, forbid_dtd=True)
    except DefusedXmlException:
        raise UnfitError(Rule.LABEL_FORMAT, "label declares XML entities, which are not read") from None
    except (ParseError, ValueError, LookupError) as error:  # an encoding that nobody knows is a LookupError
        raise UnfitError(Rule.LABEL_FORMAT, f"label is not XML: {str(error)[:80]}") from None
    if root.tag != "annotation":
        raise UnfitError(Rule.LABEL_FORMAT, f"label is not Pascal VOC: its root is <{root.tag[:40]}>")
    return root


def _read_object(found: Element, picture: Picture, rules: Rules) -> Row:
    class_id, problems = read_class_name(found.findtext("name", ""), rules)
    box = found.find("bndbox")
    if box is None:
        return [*problems, Problem(Rule.LABEL_FORMAT, "it has no bndbox")]
    numbers, wrong = read_numbers([box.findtext(corner, "").strip() for corner in _CORNERS])
    if problems or wrong:
        return [*problems, *wrong]
    return Box.between(class_id, numbers, (picture.width, picture.height))
