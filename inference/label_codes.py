"""What a label's name means in SNOMED CT, where that is certain; else a private code that says so.

The names of the field (MONAI, BTCV, TotalSegmentator: `left_kidney`, `vertebrae_L1`, `rib_left_3`,
`lung_upper_lobe_left`) are looked up in the context groups of PS3.16 for anatomy, laterality is a
modifier (CID 244). What those lack is in a table here, of codes that independent published maps of
the same structures agree on. A name is never matched by likeness: ilium is not ileum.
"""

import colorsys
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

PRIVATE_SCHEME = "99LOCAL"
CODE_VALUE, MEANING = 16, 64  # characters of a value of VR SH and LO

ANATOMY = Code("91723000", "SCT", "Anatomical Structure")
ALTERED = Code("49755003", "SCT", "Morphologically Abnormal Structure")
LEFT = Code("7771000", "SCT", "Left")
RIGHT = Code("24028007", "SCT", "Right")
BOTH = Code("51440002", "SCT", "Right and left")
SIDES = {"left": LEFT, "right": RIGHT, "l": LEFT, "r": RIGHT, "lt": LEFT, "rt": RIGHT}

CONTEXT_GROUPS = (7151, 7192, 7153, 7140, 8134, 4031)  # of anatomy, the segmentations' first
SAME = {  # spellings and slips in the labels of published models
    "kideny": "kidney",
    "clavicula": "clavicle",
    "oesophagus": "esophagus",
    "vertebrae": "vertebra",
    "tumour": "tumor",
    "oedema": "edema",
}
ALIASES = {  # the field's word -> the keyword in pydicom's dictionary of PS3.16
    "adrenal": "AdrenalGland",
    "bladder": "Bladder",
    "urinary bladder": "Bladder",
    "brainstem": "BrainStem",
    "heart atrium left": "LeftAtrium",
    "heart atrium right": "RightAtrium",
    "heart ventricle left": "LeftVentricle",
    "heart ventricle right": "RightVentricle",
    "iliac vena": "IliacVein",
    "ivc": "InferiorVenaCava",
    "lung lower lobe": "LowerLobeOfLung",
    "lung middle lobe right": "MiddleLobeOfRightLung",
    "lung upper lobe": "UpperLobeOfLung",
    "postcava": "InferiorVenaCava",
    "prostate peripheral zone": "PeripheralZoneOfTheProstate",
    "prostate transition zone": "TransitionZoneOfTheProstate",
    "small bowel": "SmallIntestine",
    "svc": "SuperiorVenaCava",
    "thyroid gland": "Thyroid",
    "hepatic vein": "HepaticVein",
    "vena cava inferior": "InferiorVenaCava",
}
BEYOND = {  # SNOMED CT that PS3.16 does not list
    "gluteus maximus": Code("206007", "SCT", "Gluteus maximus muscle"),
    "gluteus medius": Code("78333006", "SCT", "Gluteus medius muscle"),
    "gluteus minimus": Code("75297007", "SCT", "Gluteus minimus muscle"),
    "heart myocardium": Code("74281007", "SCT", "Myocardium"),
    "iliopsoas": Code("68455001", "SCT", "Iliopsoas muscle"),
    "myocardium": Code("74281007", "SCT", "Myocardium"),
}
RIBS = dict(
    enumerate(
        (
            Code("48535007", "SCT", "First rib"),
            Code("78247007", "SCT", "Second rib"),
            Code("25888004", "SCT", "Third rib"),
            Code("25523003", "SCT", "Fourth rib"),
            Code("15339008", "SCT", "Fifth rib"),
            Code("59558009", "SCT", "Sixth rib"),
            Code("24915002", "SCT", "Seventh rib"),
            Code("5953002", "SCT", "Eighth rib"),
            Code("22565002", "SCT", "Ninth rib"),
            Code("77644006", "SCT", "Tenth rib"),
            Code("58830002", "SCT", "Eleventh rib"),
            Code("43993008", "SCT", "Twelfth rib"),
        ),
        start=1,
    )
)
ALTERATIONS = {
    "tumor": "Neoplasm",
    "neoplasm": "Neoplasm",
    "nodule": "Nodule",
    "lesion": "Lesion",
    "edema": "Edema",
    "cyst": "Cyst",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Meaning:
    """A label in DICOM's words; `certain`: the code is a public one."""

    category: Code
    type: Code
    modifier: Code | None = None

    @property
    def certain(self) -> bool:
        """Whether a reader elsewhere knows the code."""
        return self.type.scheme_designator != PRIVATE_SCHEME


def meaning(name: str) -> Meaning:
    """The codes of a label; a private one, made of the name, where none is certain."""
    words = _words(name)
    whole = " ".join(words)
    if (altered := _keyword(ALTERATIONS.get(whole, ""))) is not None:
        return Meaning(category=ALTERED, type=altered)
    if (found := _special(words, whole)) is not None:
        return Meaning(category=ANATOMY, type=found)
    sides = [SIDES[word] for word in words if word in SIDES]
    rest = [word for word in words if word not in SIDES]
    if len(sides) <= 1 and (structure := _structure(rest)) is not None:
        return Meaning(category=ANATOMY, type=structure, modifier=sides[0] if sides else None)
    if not sides and words and words[-1].endswith("s"):
        paired = _structure([*words[:-1], words[-1].removesuffix("s")])
        if paired is not None and whole in ("kidneys", "lungs", "adrenal glands"):
            return Meaning(category=ANATOMY, type=paired, modifier=BOTH)
    if (listed := _listed().get(whole)) is not None:
        return Meaning(category=ANATOMY, type=listed)
    return Meaning(category=ANATOMY, type=private(name))


def _words(name: str) -> list[str]:
    """`leftKidney`, `left_kidney` and `Left Kideny` are all left, kidney."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    words = [word for word in re.split(r"[^a-z0-9]+", spaced.lower()) if word]
    return [SAME.get(word, word) for word in words]


def _special(words: Sequence[str], whole: str) -> Code | None:
    """Structures whose side is part of what they are, not a modifier."""
    if whole in ALIASES and {"left", "right"} & set(words):
        return _keyword(ALIASES[whole])
    heart = {"left", "right"} & set(words) and {"atrium", "ventricle"} & set(words)
    return _listed().get(whole) if heart else None


def _structure(words: Sequence[str]) -> Code | None:
    whole = " ".join(words)
    if whole in ALIASES:
        return _keyword(ALIASES[whole])
    if whole in BEYOND:
        return BEYOND[whole]
    match words:
        case ["rib", number] if number.isdecimal() and int(number) in RIBS:
            return RIBS[int(number)]
        case ["vertebra", level] | [level, "vertebra"] if re.fullmatch(r"[ctl]\d+", level):
            return _keyword(f"{level.upper()}Vertebra")
    return _listed().get(whole)


def _keyword(keyword: str) -> Code | None:
    """The SNOMED CT code of a keyword of PS3.16; None when there is none, or more than one."""
    try:
        found = getattr(codes.SCT, keyword, None)
    except RuntimeError:  # (the dictionary's word for an ambiguous one)
        return None
    return found if isinstance(found, Code) else None


@cache
def _listed() -> dict[str, Code]:
    """SNOMED CT codes of the context groups of anatomy, by their meaning in lower case."""
    found: dict[str, Code] = {}
    for number in CONTEXT_GROUPS:
        for keyword in dir(getattr(codes, f"cid{number}")):
            if (code := _keyword(keyword)) is not None:
                found.setdefault(" ".join(re.split(r"[^a-z0-9]+", code.meaning.lower())), code)
    return found


def private(name: str) -> Code:
    """A code of ours: readable if it is short enough, else short by a digest of the name."""
    value = re.sub(r"[^A-Z0-9]+", "_", name.upper()).strip("_") or "LABEL"
    if len(value) > CODE_VALUE:
        digest = hashlib.sha256(name.encode()).hexdigest()[:6].upper()
        value = f"{value[: CODE_VALUE - 7]}_{digest}"
    return Code(value, PRIVATE_SCHEME, name[:MEANING])


GOLDEN = 0.61803398875  # of a turn: the next hue is far from all before


def colour(value: int) -> tuple[int, int, int]:
    """The display colour (sRGB) of the label with that value: neighbours differ clearly."""
    lightness, saturation = (0.5, 0.85), (0.65, 0.7)
    light, strong = lightness if value % 2 else saturation
    red, green, blue = colorsys.hls_to_rgb((value * GOLDEN) % 1.0, light, strong)
    return round(red * 255), round(green * 255), round(blue * 255)
