"""Names of labels to codes: the names of published models, and nothing by likeness.

Not covered: whether SNOMED CT's own release still has each code; that is a list in PS3.16.
"""

import json
from pathlib import Path

import pytest
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from inference import label_codes
from inference.label_codes import ALIASES, ALTERED, BOTH, LEFT, RIGHT, meaning

KIDNEY = codes.SCT.Kidney


@pytest.mark.parametrize(
    "name", ["kidney_left", "left_kidney", "Left Kidney", "Left Kideny", "leftKidney", "kidney_l"]
)
def test_the_side_is_a_modifier_however_it_is_written(name: str) -> None:
    found = meaning(name)
    assert (found.type, found.modifier) == (KIDNEY, LEFT)


@pytest.mark.parametrize(
    ("name", "code", "side"),
    [
        ("vertebrae_L1", "66794005", None),
        ("vertebrae_T12", "23215003", None),
        ("rib_left_3", "25888004", LEFT),
        ("lung_upper_lobe_left", "45653009", LEFT),
        ("lung_middle_lobe_right", "72481006", None),
        ("heart_atrium_left", "82471001", None),
        ("IVC", "64131007", None),
        ("adrenal_gland_right", "23451007", RIGHT),
        ("kidneys", "64033007", BOTH),
        ("urinary_bladder", "89837001", None),
        ("Spleen", "78961009", None),
        ("right lung middle lobe", "72481006", None),
        ("3rd-Ventricle", "49841001", None),
        ("Left-Thalamus-Proper", "42695009", LEFT),
        ("Right-Cerebellum-White-Matter", "33060004", RIGHT),
    ],
)
def test_names_of_published_models(name: str, code: str, side: Code | None) -> None:
    found = meaning(name)
    assert (found.type.value, found.type.scheme_designator) == (code, "SCT")
    assert found.modifier == side
    assert found.certain


def test_a_tumour_is_no_anatomical_structure() -> None:
    assert meaning("tumour").category == ALTERED


@pytest.mark.parametrize("name", ["vertebrae_L9", "rib_left_13", "splen", "ileum-like", "lv_pool"])
def test_what_is_not_certain_is_private_and_says_so(name: str) -> None:
    found = meaning(name)
    assert not found.certain
    assert found.type.scheme_designator == "99LOCAL"
    assert found.type.meaning == name
    assert len(found.type.value) <= 16


def test_private_codes_of_long_names_differ() -> None:
    names = [f"portal_vein_and_splenic_vein_{number}" for number in range(50)]
    assert len({label_codes.private(name).value for name in names}) == len(names)


@pytest.mark.parametrize(
    ("one", "other"), [("HER2+", "HER2-"), ("<5 mm", ">5 mm"), ("肝", "脾"), ("a.b", "a b")]
)
def test_private_codes_of_names_that_differ_in_a_sign_differ(one: str, other: str) -> None:
    assert label_codes.private(one).value != label_codes.private(other).value


@pytest.mark.parametrize(
    ("name", "code", "category"),
    [
        ("nodule left", "27925004", "49755003"),
        ("hemorrhage", "50960005", "49755003"),
        ("stent", "65818007", "260787004"),
        ("fat", "55603005", "85756007"),
        ("lung", "39607008", "91723000"),
        ("brain ventricle", "35764002", "91723000"),
    ],
)
def test_the_category_is_that_of_the_group_that_lists_the_code(
    name: str, code: str, category: str
) -> None:
    found = meaning(name)
    assert (found.type.value, found.category.value) == (code, category)


@pytest.mark.parametrize(
    "name",
    [
        "ventricle",
        "right atrium of ventricle",
        "wall",
        "floor_left",
        "media",
        "wing",
        "left",
        "left atrial appendage",
        "liver_left_lobe",
        "non_left_kidney",
        "kidney_cyst_left",
        "leftover",
        "left and right kidney",
        "gluteus_minimus_left",
        "iliopsoas_right",
    ],
)
def test_names_of_something_else_or_of_no_certain_code_are_private(name: str) -> None:
    assert not meaning(name).certain
    assert meaning(name).modifier is None


def test_every_alias_names_a_concept_of_the_standard() -> None:
    missing = [word for word, keyword in ALIASES.items() if not hasattr(codes.SCT, keyword)]
    assert missing == []


def test_colours_of_104_labels_differ_and_stay() -> None:
    colours = [label_codes.colour(value) for value in range(1, 105)]
    assert len(set(colours)) == 104
    assert colours[:2] == [(19, 82, 236), (176, 228, 103)]


@pytest.mark.shared_data
def test_nearly_all_labels_of_the_whole_body_have_a_public_code(data: Path) -> None:
    file = data / "bundles/wholeBody_ct_segmentation/configs/metadata.json"
    formats = json.loads(file.read_text())["network_data_format"]
    names = list(formats["outputs"]["pred"]["channel_def"].values())[1:]
    private = {name for name in names if not meaning(name).certain}
    muscles = ("autochthon", "gluteus_minimus", "iliopsoas")
    sided = {f"{muscle}_{side}" for muscle in muscles for side in ("left", "right")}
    assert private == {"portal_vein_and_splenic_vein", *sided}
    coded = [(meaning(name).type.value, meaning(name).modifier) for name in names]
    assert len(set(coded)) == len(names), "two structures have the same code"
