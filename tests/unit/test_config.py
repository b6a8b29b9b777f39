"""The configuration: what a valid one means, and the line that every invalid one gives.

Not covered: that the node heeds each key (the integration tests), the documents (tests/docs).
"""

from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest
from pydantic import ValidationError

from service import resolved
from service.config import Configuration, ConfigurationError, load, parse
from service.criteria import Criterion
from storage.records import Priority

FILE = Path("/etc/hounsfield/node.toml")
WHOLE = """
[[destinations]]
name = "pacs"
kind = "dicom"
ae_title = "PACS"
host = "pacs.example"
port = 104

[[destinations]]
name = "out"
kind = "folder"
path = "out"
results = ["segmentation"]

[[models]]
name = "body"
kind = "body_outline"

[[routes]]
name = "chest CT"
models = ["body"]
destinations = ["pacs", "out"]
priority = "stat"
select = "best"
prefer = ["soft_kernel"]
minimum_instances = 20

[routes.match]
Modality = "CT"
BodyPartExamined = ["CHEST", "THORAX"]
SliceThickness = { max = 2.5 }
SeriesDescription = { pattern = "lung|thorax" }
Rows = 512
"""


def text(toml: str) -> Configuration:
    """The configuration of a text."""
    return parse(toml, file=FILE)


def refusal(toml: str) -> str:
    """The error of a text, without the name of the file."""
    with pytest.raises(ConfigurationError) as refused:
        text(toml)
    message = str(refused.value)
    assert message.startswith(f"{FILE}: ")
    assert "\n" not in message
    return message.removeprefix(f"{FILE}: ")


def test_nothing_configured_is_valid() -> None:
    empty = text("")
    assert (empty.models, empty.routes, empty.destinations) == ((), (), ())
    assert empty.application_entity.port == 11112
    assert empty.completion.kind == "quiet_period"


def test_names_are_resolved() -> None:
    whole = text(WHOLE)
    route = whole.routes[0]
    assert route.models == whole.models
    assert route.destinations == ("pacs", "out")
    assert route.priority is Priority.STAT
    assert route.best
    assert route.match == (
        Criterion(keyword="Modality", values=("CT",)),
        Criterion(keyword="BodyPartExamined", values=("CHEST", "THORAX")),
        Criterion(keyword="SliceThickness", maximum=2.5),
        Criterion(keyword="SeriesDescription", pattern="lung|thorax"),
        Criterion(keyword="Rows", values=("512",)),
    )


def test_a_kinds_own_keys_arrive_with_their_defaults() -> None:
    pacs, out = text(WHOLE).destinations
    assert pacs.settings["ae_title"] == "PACS"
    assert pacs.settings["tls"] is False
    assert pacs.settings["tls_certificate"] is None
    assert out.settings == {"path": "/etc/hounsfield/out"}


def test_paths_start_at_the_folder_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "node.toml").write_text('[storage]\ndirectory = "x"\n[log]\nfile = "y.log"')
    loaded = load(tmp_path / "node.toml")
    assert loaded.storage.directory == tmp_path / "x"
    assert loaded.log.file == tmp_path / "y.log"
    assert loaded.database_url == f"sqlite:///{tmp_path / 'x' / 'catalogue.sqlite'}"


def test_the_early_deletion_follows_the_least_free_space() -> None:
    assert text("[storage]\nminimum_free_gib = 50").retention.free_gib == 100
    assert text("[retention]\nfree_gib = 7").retention.free_gib == 7


def test_a_models_digest_follows_kind_and_settings_only() -> None:
    one, other = (
        text(f'[[models]]\nname = "{name}"\nkind = "{kind}"\ndeadline_seconds = {seconds}').models[
            0
        ]
        for name, kind, seconds in (("a", "body_outline", 1), ("b", "body_outline", 2))
    )
    lung = text('[[models]]\nname = "a"\nkind = "lung_ct"').models[0]
    assert one.digest == other.digest != lung.digest
    assert lung.requirements["modalities"] == ("CT",)
    assert lung.version


def test_values_are_frozen() -> None:
    configuration = text(WHOLE)
    with pytest.raises(FrozenInstanceError):
        configuration.models = ()  # type: ignore[misc]
    with pytest.raises(ValidationError):
        configuration.web.port = 1


ROUTE = '[[models]]\nname="m"\nkind="body_outline"\n[[routes]]\nname="r"\nmodels=["m"]\n'


WRONG = [
    ("x =", "Invalid value (at end of document); allowed: TOML 1.0"),
    (
        "[wev]",
        (
            "wev: unknown key (did you mean web?); allowed: application_entity, storage, web, "
            "completion, retention, results, inference, deliveries, log, destinations, models, "
            "routes"
        ),
    ),
    ("web = 3", "web: 3 is not a table; allowed: a table of host, port"),
    ("[web]\nprot = 1", "web.prot: unknown key (did you mean port?); allowed: host, port"),
    ("[web]\nport = 0", "web.port: 0 is not allowed; allowed: a port from 1 to 65535"),
    ("[web]\nport = 70000", "web.port: 70000 is not allowed; allowed: a port from 1 to 65535"),
    ('[web]\nport = "80"', "web.port: '80' is not allowed; allowed: a port from 1 to 65535"),
    ("[web]\nport = true", "web.port: True is not allowed; allowed: a port from 1 to 65535"),
    (
        '[web]\nhost = "a b"',
        "web.host: 'a b' is not allowed; allowed: a host name or address",
    ),
    (
        '[application_entity]\nae_title = "MORE THAN SIXTEEN"',
        (
            "application_entity.ae_title: 'MORE THAN SIXTEEN' is not allowed; allowed: an AE "
            "title: 1 to 16 ASCII characters, no backslash, not blank"
        ),
    ),
    (
        '[application_entity]\nae_title = "   "',
        (
            "application_entity.ae_title: '   ' is not allowed; allowed: an AE title: 1 to 16 "
            "ASCII characters, no backslash, not blank"
        ),
    ),
    (
        '[application_entity]\naccepted_calling_ae_titles = ["A", 2]',
        (
            "application_entity.accepted_calling_ae_titles[2]: 2 is not allowed; allowed: a list "
            "of AE titles; empty: anyone"
        ),
    ),
    (
        "[storage]\nminimum_free_gib = nan",
        "storage.minimum_free_gib: nan is not allowed; allowed: a number, 0 or more",
    ),
    (
        '[storage]\ndatabase = "mysql://x"',
        (
            "storage.database: 'mysql://x' is not allowed; allowed: sqlite:///PATH or "
            "postgresql+psycopg://USER:PASSWORD@HOST/NAME"
        ),
    ),
    (
        "[retention]\nfree_gib = 1",
        "retention.free_gib: 1 is below storage.minimum_free_gib; allowed: 5 or more",
    ),
    (
        '[log]\nlevel = "loud"',
        "log.level: 'loud' is not allowed; allowed: debug, info, warning or error",
    ),
    (
        '[completion]\nkind = "quiet"',
        (
            "completion.kind: 'quiet' is not a kind (did you mean quiet_period?); allowed: "
            "quiet_period"
        ),
    ),
    (
        "[completion]\nseconds = 0",
        "completion.seconds: 0 is not allowed; allowed: a number above 0, at most 31536000",
    ),
    ("[models]\nname = 1", "models: is not a list of tables; allowed: [[models]]"),
    (
        "models = [1]",
        "models[1]: 1 is not a table; allowed: a table of name, kind, deadline_seconds",
    ),
    (
        '[[models]]\nname = "m"',
        (
            "models[m].kind: is missing; allowed: body_outline, lung_ct, mask_rcnn, monai_bundle, "
            "nnunet, onnx, python, torchscript, vessels"
        ),
    ),
    (
        '[[models]]\nkind = "body_outline"',
        "models[1].name: is missing; allowed: a name of 1 to 64 characters without / and \\",
    ),
    (
        '[[models]]\nname = "m"\nkind = "lung_mr"',
        (
            "models[m].kind: 'lung_mr' is not a kind (did you mean lung_ct?); allowed: "
            "body_outline, lung_ct, mask_rcnn, monai_bundle, nnunet, onnx, python, torchscript, "
            "vessels"
        ),
    ),
    (
        '[[models]]\nname="m"\nkind="body_outline"\n[[models]]\nname="m"\nkind="lung_ct"',
        "models[m].name: 'm' is used twice; allowed: a name of its own",
    ),
    (
        '[[destinations]]\nname="p"\nkind="dicom"\nae_title="P"\nhost="h"',
        "destinations[p].port: is missing; allowed: a port from 1 to 65535",
    ),
    (
        '[[destinations]]\nname="p"\nkind="folder"\npath="x"\nresults=["segmentations"]',
        (
            "destinations[p].results: 'segmentations' is not a result kind (did you mean "
            "segmentation?); allowed: measurement_report, segmentation"
        ),
    ),
    (
        '[[destinations]]\nname="p"\nkind="folder"\nhost="x"\npath="x"',
        ("destinations[p].host: unknown key; allowed: name, kind, results, path"),
    ),
    (
        '[[routes]]\nname="r"\nmodels=["m"]',
        "routes[r].models: 'm' is not a model; allowed: none is configured",
    ),
    (
        ROUTE + 'destinations=["pax"]',
        "routes[r].destinations: 'pax' is not a destination; allowed: none is configured",
    ),
    (
        ROUTE + 'select="all"',
        "routes[r].select: 'all' is not allowed; allowed: each or best",
    ),
    (
        ROUTE + 'priority="high"',
        "routes[r].priority: 'high' is not allowed; allowed: routine, urgent or stat",
    ),
    (
        ROUTE + 'select="best"\nprefer=["thin"]',
        (
            "routes[r].prefer: 'thin' is not a preference (did you mean thin_slices?); allowed: "
            "original, thin_slices, thick_slices, soft_kernel, sharp_kernel, most_instances, "
            "contrast, no_contrast"
        ),
    ),
    (
        ROUTE + 'prefer=["contrast"]',
        'routes[r].prefer: has no effect; allowed: prefer only with select = "best"',
    ),
    (
        ROUTE + "match = { Modality = [] }",
        (
            "routes[r].match.Modality: []; allowed: a value, a list of values, or a table of "
            "pattern, min, max"
        ),
    ),
    (
        ROUTE + "match = { Modality = { max = true } }",
        (
            "routes[r].match.Modality: max True is not a number; allowed: a value, a list of "
            "values, or a table of pattern, min, max"
        ),
    ),
    (
        ROUTE + "match = { Modality = { like = 'x' } }",
        (
            "routes[r].match.Modality: unknown key 'like'; allowed: a value, a list of values, "
            "or a table of pattern, min, max"
        ),
    ),
    (
        ROUTE + "match = { Modality = { pattern = '(' } }",
        (
            "routes[r].match.Modality: pattern '(' is not a regular expression: missing ), "
            "unterminated subpattern at position 0; allowed: a value, a list of values, or a "
            "table of pattern, min, max"
        ),
    ),
]


@pytest.mark.parametrize(("toml", "line"), WRONG)
def test_what_is_wrong_is_said_in_one_line(toml: str, line: str) -> None:
    assert refusal(toml) == line


def test_an_unknown_keyword_is_refused_with_its_neighbours() -> None:
    line = refusal(ROUTE + 'match = { SerieDescription = "x" }')
    assert line.startswith(
        "routes[r].match.SerieDescription: not an element that can be matched (did you mean "
        "SeriesDescription"
    )
    assert line.endswith("StudyTime")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    absent = tmp_path / "absent.toml"
    with pytest.raises(ConfigurationError, match=r"absent.toml: cannot be read: No such file"):
        load(absent)
    absent.write_bytes(b"\xff")
    with pytest.raises(ConfigurationError, match="is not UTF-8"):
        load(absent)


@pytest.mark.parametrize("toml", ["", WHOLE])
def test_the_resolved_configuration_loads_to_the_same(toml: str) -> None:
    once = text(toml)
    again = parse(resolved.toml(once), file=FILE)
    assert resolved.toml(again) == resolved.toml(once)
    assert again.routes == once.routes
    assert again.destinations == once.destinations


def test_secrets_are_masked() -> None:
    url = "postgresql+psycopg://node:very:secret@db.example/hounsfield"
    shown = resolved.toml(text(f'[storage]\ndatabase = "{url}"'))
    assert "secret" not in shown
    assert "postgresql+psycopg://node:********@db.example/hounsfield" in shown
