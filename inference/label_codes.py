"""What a label's name means in SNOMED CT, where that is certain; else a private code that says so.

The names of the field (MONAI, BTCV, TotalSegmentator: `left_kidney`, `vertebrae_L1`, `rib_left_3`,
`lung_upper_lobe_left`) are looked up in the context groups of PS3.16 for anatomy, laterality is a
modifier (CID 244). The group that lists a code decides its category (CID 7150). What those lack is
in a table here, of codes that independent published maps of the same structures agree on. A name is
never matched by likeness: ilium is not ileum; nor is a word that the standard uses of another
thing: the wall of a bladder is no wall of a room.
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
PLAIN = re.compile(r"[A-Za-z0-9]+([ _-][A-Za-z0-9]+)*")

ANATOMY = Code("91723000", "SCT", "Anatomical Structure")
ALTERED = Code("49755003", "SCT", "Morphologically Abnormal Structure")
TISSUE = Code("85756007", "SCT", "Tissue")
OBJECT = Code("260787004", "SCT", "Physical object")
LEFT = Code("7771000", "SCT", "Left")
RIGHT = Code("24028007", "SCT", "Right")
BOTH = Code("51440002", "SCT", "Right and left")
SIDES = {"left": LEFT, "right": RIGHT, "l": LEFT, "r": RIGHT, "lt": LEFT, "rt": RIGHT}

CONTEXT_GROUPS = {  # the first that lists a code decides; the segmentations' own before the others
    7192: ANATOMY,
    7153: ANATOMY,
    7140: ANATOMY,
    8134: ANATOMY,
    4031: ANATOMY,
    7191: TISSUE,
    7194: ALTERED,
    7193: OBJECT,
}
AMBIGUOUS = {  # of the heart, of an artery, of a room, of a bird in the standard; of more in models
    "atrium",
    "ventricle",
    "media",
    "wall",
    "floor",
    "wing",
    "suture",
}
SAME = {  # spellings and slips in the labels of published models
    "kideny": "kidney",
    "clavicula": "clavicle",
    "oesophagus": "esophagus",
    "vertebrae": "vertebra",
    "tumour": "tumor",
    "oedema": "edema",
}
ALIASES = {  # the field's word -> the keyword in pydicom's dictionary of PS3.16
    "3rd ventricle": "ThirdVentricle",
    "4th ventricle": "FourthVentricle",
    "accumbens area": "NucleusAccumbens",
    "adrenal": "AdrenalGland",
    "bladder": "Bladder",
    "urinary bladder": "Bladder",
    "brachiocephalic trunk": "InnominateArtery",
    "brainstem": "BrainStem",
    "cerebellum white matter": "CerebellarWhiteMatter",
    "costal cartilages": "CostalCartilage",
    "heart atrium left": "LeftAtrium",
    "heart atrium right": "RightAtrium",
    "heart ventricle left": "LeftVentricle",
    "heart ventricle right": "RightVentricle",
    "iliac vena": "IliacVein",
    "ivc": "InferiorVenaCava",
    "lung lower lobe": "LowerLobeOfLung",
    "lung middle lobe right": "MiddleLobeOfRightLung",
    "lung upper lobe": "UpperLobeOfLung",
    "pallidum": "GlobusPallidus",
    "postcava": "InferiorVenaCava",
    "prostate peripheral zone": "PeripheralZoneOfTheProstate",
    "prostate transition zone": "TransitionZoneOfTheProstate",
    "right lung middle lobe": "MiddleLobeOfRightLung",
    "small bowel": "SmallIntestine",
    "svc": "SuperiorVenaCava",
    "thalamus proper": "Thalamus",
    "thyroid gland": "Thyroid",
    "hepatic vein": "HepaticVein",
    "vena cava inferior": "InferiorVenaCava",
}
BEYOND = {  # SNOMED CT that PS3.16 does not list
    "gluteus maximus": Code("206007", "SCT", "Gluteus maximus muscle"),
    "gluteus medius": Code("78333006", "SCT", "Gluteus medius muscle"),
    "heart myocardium": Code("74281007", "SCT", "Myocardium"),
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
        return Meaning(category=_category(found), type=found)
    sides = [SIDES[word] for word in words if word in SIDES]
    rest = [word for word in words if word not in SIDES]
    if len(sides) <= 1 and (structure := _structure(rest)) is not None:
        side = sides[0] if sides else None
        return Meaning(category=_category(structure), type=structure, modifier=side)
    if not sides and words and words[-1].endswith("s"):
        paired = _structure([*words[:-1], words[-1].removesuffix("s")])
        if paired is not None and whole in ("kidneys", "lungs", "adrenal glands"):
            return Meaning(category=ANATOMY, type=paired, modifier=BOTH)
    if (listed := _listed().get(whole)) is not None:
        return Meaning(category=_category(listed), type=listed)
    return Meaning(category=ANATOMY, type=private(name))


def _category(code: Code) -> Code:
    """What kind of thing a code is of; those of the tables here are anatomy."""
    return _categories().get(code.value, ANATOMY)


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
    """SNOMED CT codes of the context groups, by their meaning in lower case."""
    found: dict[str, Code] = {}
    for number in CONTEXT_GROUPS:
        for code in _group(number):
            found.setdefault(" ".join(re.split(r"[^a-z0-9]+", code.meaning.lower())), code)
    return {words: code for words, code in found.items() if words not in AMBIGUOUS}


@cache
def _categories() -> dict[str, Code]:
    """The category of each code of the context groups."""
    found: dict[str, Code] = {}
    for number, category in CONTEXT_GROUPS.items():
        for code in _group(number):
            found.setdefault(code.value, category)
    return found


def _group(number: int) -> list[Code]:
    keywords = dir(getattr(codes, f"cid{number}"))
    return [code for keyword in keywords if (code := _keyword(keyword)) is not None]


def private(name: str) -> Code:
    """A code of ours: readable if it is short and says all of the name, else with a digest of it.

    Names that differ in more than capitals, spaces, hyphens and underlines have different codes.
    """
    value = re.sub(r"[^A-Z0-9]+", "_", name.upper()).strip("_") or "LABEL"
    if len(value) > CODE_VALUE or not PLAIN.fullmatch(name):
        digest = hashlib.sha256(name.encode()).hexdigest()[:6].upper()
        value = f"{value[: CODE_VALUE - 7].rstrip('_')}_{digest}"
    return Code(value, PRIVATE_SCHEME, name[:MEANING])


GOLDEN = 0.61803398875  # of a turn: the next hue is far from all before


def colour(value: int) -> tuple[int, int, int]:
    """The display colour (sRGB) of the label with that value: neighbours differ clearly."""
    lightness, saturation = (0.5, 0.85), (0.65, 0.7)
    light, strong = lightness if value % 2 else saturation
    red, green, blue = colorsys.hls_to_rgb((value * GOLDEN) % 1.0, light, strong)
    return round(red * 255), round(green * 255), round(blue * 255)
