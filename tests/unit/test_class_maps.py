"""A class map means the same wherever it is written, and a model keeps its meaning through retraining."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainwright.contract import ClassesSettings, ClassMap, ClassMapError, ClassVariant, parse_class_map
from trainwright.errors import ConfigurationError
from trainwright_trainer.annotations.classes import refuse_other_classes

TOOL_FILE = [
    {"Id": 0, "Name": "bolt", "ShortName": "B", "Color": "#ff0000", "MaxSizeM": 3, "PhotoMode": None},
    {"Id": 1, "Name": "nut", "ShortName": "N", "Color": "#80ff0000"},
]
VARIANTS = (ClassVariant(name="wet", offset=20), ClassVariant(name="dark", offset=40))


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(TOOL_FILE),
        "\ufeff" + json.dumps(TOOL_FILE[::-1]),
        '["bolt", "nut"]',
        "- bolt\n- nut\n",
        "- {id: 0, name: bolt}\n- {ID: '1', NAME: ' nut '}",
        '{"classes": ["bolt", "nut"], "variants": [], "slots": null}',
        ClassMap.of_names(["bolt", "nut"]).to_json(),
    ],
)
def test_every_usual_form_is_read(text: str) -> None:
    assert parse_class_map(text).names == ("bolt", "nut")


def test_short_names_and_colours_are_kept_and_what_else_a_tool_keeps_is_left_out() -> None:
    found = parse_class_map(json.dumps(TOOL_FILE))
    assert (found.classes[1].short_name, found.classes[1].color) == ("N", "#80ff0000")
    assert "PhotoMode" not in found.to_json()


def test_variants_have_their_own_ids_and_free_slots_their_own_names() -> None:
    found = ClassMap.of_names(["bolt", "nut"], VARIANTS, 80)
    assert len(found.names) == 80
    assert found.names[:3] == ("bolt", "nut", "unused-2")
    assert (found.names[21], found.names[40]) == ("nut (wet)", "bolt (dark)")
    assert set(found.names_by_id) == {0, 1, 20, 21, 40, 41}


def test_ids_of_one_name_are_told_apart() -> None:
    ids = [{"Id": 0, "Name": "bolt"}, {"Id": 20, "Name": "bolt"}, {"Id": 40, "Name": "bolt"}]
    found = parse_class_map(json.dumps(ids))
    assert [found.names[position] for position in (0, 20, 40)] == ["bolt", "bolt-20", "bolt-40"]


def test_one_class_is_a_legitimate_map() -> None:
    assert ClassMap.of_names(["bolt"]).names == ("bolt",)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "not a list of class names"),
        ("42", "not a list of class names"),
        ("{}", "not a list of classes"),
        ('{"names": {"0": "bolt"}}', "not a list of classes"),
        ("[]", "names no class"),
        ("[1]", r"classes\.0: .*\(it is 1\)"),
        ('[""]', r"classes\.0\.name: "),
        ('["a\\nb"]', r"classes\.0\.name: "),
        ('[{"Name": "bolt"}]', r"classes\.0\.id: Field required"),
        ('[{"Id": 0}]', r"classes\.0\.name: Field required"),
        ('[{"Id": 0.5, "Name": "bolt"}]', r"classes\.0\.id: "),
        ('[{"Id": 1000, "Name": "bolt"}]', r"classes\.0\.id: .*1000"),
        ('[{"Id": 0, "Name": "bolt", "Color": "red;}</style>"}]', r"classes\.0\.color: "),
        (json.dumps(["x" * 64]), r"classes\.0\.name: .*63"),
        (json.dumps([f"c{i}" for i in range(1001)]), "1000"),
        ('[{"Id": 3, "Name": "a"}, {"Id": 3, "Name": "b"}]', "id 3 is both 'a' and 'b'"),
        ('{"classes": ["a", "b"], "slots": 1}', r"id 1 \('b'\) is beyond the 1 slots"),
        ('{"classes": ["a", "b"], "variants": [{"Name": "wet", "Offset": 1}]}', r"id 1 is both .*wet"),
        ('{"classes": ["a"], "variants": [{"Name": "dry", "Offset": 0}]}', r"variants\.0\.offset"),
        ("[" * 100_000, "nested too deeply"),
        ("a: &a [x]\nb: *a", "references"),
        ("[: :", "not JSON or YAML"),
        ("2026-13-45", "not JSON or YAML"),
        ("x" * 1_048_577, "1048577 characters"),
        ("!!python/object/apply:os.system [ls]", "not JSON or YAML"),
    ],
    ids=lambda value: value[:40],
)
def test_a_text_that_is_no_class_map_is_refused_with_a_sentence(text: str, problem: str) -> None:
    with pytest.raises(ClassMapError, match=problem) as refused:
        parse_class_map(text)
    assert len(str(refused.value)) < 1000


def test_all_that_is_wrong_is_listed_but_bounded() -> None:
    with pytest.raises(ClassMapError, match=r"classes\.0\.id: .*; classes\.2\.id: .* \(and 26 more\)"):
        parse_class_map(json.dumps([{"Id": -1, "Name": ""}] * 15))


@given(st.text(max_size=60) | st.text(alphabet="[]{}:,\"'-&* \nIdName01", max_size=60))
def test_any_text_is_a_class_map_or_refused(text: str) -> None:
    try:
        found = parse_class_map(text)
    except ClassMapError:
        return
    assert parse_class_map(found.to_json()) == found


names = st.lists(st.text("abcdef", min_size=1, max_size=4), min_size=1, max_size=6)


@given(names, names)
def test_a_map_is_compatible_with_itself_and_what_it_adds_to(ours: list[str], more: list[str]) -> None:
    small, large = ClassMap.of_names(ours), ClassMap.of_names([*ours, *more])
    assert small.compatible_with(small)
    assert large.compatible_with(small)
    assert not small.compatible_with(large)


def test_the_version_is_that_of_the_content_however_it_was_written() -> None:
    one, two = parse_class_map(json.dumps(TOOL_FILE)), parse_class_map(json.dumps(TOOL_FILE[::-1], indent=2))
    assert one.version == two.version
    assert one.version != ClassMap.of_names(["bolt", "nut"]).version
    assert one.compatible_with(ClassMap.of_names(["Bolt", "nut"]))


@pytest.mark.parametrize(
    ("ours", "why"),
    [
        (ClassMap.of_names(["nut", "bolt"]), "class 0 was 'bolt' and is now 'nut'; class 1 was 'nut'"),
        (ClassMap.of_names(["bolt"]), "class 1 was 'nut' and is gone; the parent counts 2 classes"),
        (ClassMap.of_names(["bolt", "washer", "nut"]), "class 1 was 'nut' and is now 'washer'"),
    ],
)
def test_a_parent_whose_ids_meant_something_else_is_refused(ours: ClassMap, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why) as refused:
        refuse_other_classes(ours, ClassMap.of_names(["bolt", "nut"]), "parts-1")
    assert "parts-1" in str(refused.value)
    assert "Keep the ids" in refused.value.hint


def test_a_parent_whose_free_slots_are_filled_is_not_refused() -> None:
    parent = ClassMap.of_names(["bolt", "nut"], VARIANTS, 80)
    refuse_other_classes(ClassMap.of_names(["bolt", "nut", "washer"], VARIANTS, 80), parent, "parts-1")
    assert not ClassMap.of_names(["bolt", "nut"], VARIANTS).compatible_with(parent)


def test_variants_and_slots_of_the_settings_hold_for_names_and_maps_alike() -> None:
    inline = ClassesSettings(inline=("bolt", "nut"), variants=VARIANTS, slots=80).given
    whole = ClassesSettings(map=ClassMap.of_names(["bolt", "nut"]), variants=VARIANTS, slots=80).given
    assert inline == whole
    assert inline is not None
    assert len(inline.names) == 80
