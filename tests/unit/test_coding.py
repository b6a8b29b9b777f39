"""Codes: each has one meaning, the one that the dictionaries give it.

Not covered: the codes of models' segments (their own tests).
"""

import pytest
from pydicom.sr import _cid_dict, codes
from pydicom.sr._concepts_dict import concepts
from pydicom.sr.coding import Code

from inference import coding

OURS = [
    code
    for value in vars(coding).values()
    for code in (value.values() if isinstance(value, dict) else [value])
    if isinstance(code, Code)
]
UNLISTED = {"C0034375"}  # PS3.16 TID 1500 row 12; pydicom has no dictionary of UMLS
SCHEMES = {"DCM", "SCT"}


def test_one_code_has_one_meaning() -> None:
    by_code = {(code.scheme_designator, code.value): code.meaning for code in OURS}
    for code in OURS:
        assert by_code[code.scheme_designator, code.value] == code.meaning


@pytest.mark.parametrize(
    "code", [c for c in OURS if c.scheme_designator in SCHEMES], ids=lambda c: c.meaning
)
def test_the_meaning_is_the_dictionary_s(code: Code) -> None:
    named = concepts[code.scheme_designator]
    meanings = {
        meaning.lower()
        for entry in named.values()
        for value, (meaning, _) in entry.items()
        if value == code.value
    }
    assert code.meaning.lower() in meanings


def test_meanings_fit_a_code_meaning() -> None:
    assert all(len(code.meaning) <= 64 and len(code.value) <= 16 for code in OURS)


@pytest.mark.parametrize("modality", ["CT", "MR", "PT", "NM", "CR", "DX", "US", ""])
def test_every_modality_has_a_procedure(modality: str) -> None:
    context_group = _cid_dict.cid_concepts[100]
    names = {name for members in context_group.values() for name in members}
    meant = {str(code.value) for name in names for code in [getattr(codes.cid100, name)]}
    assert coding.procedure(modality).value in meant
