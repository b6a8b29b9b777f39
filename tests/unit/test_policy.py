"""The static policy on bundles: what computes passes, every way out is refused before it runs.

Not covered: a class of MONAI that is in the vocabulary and does more than it should; that is what
the sandbox is for (tests/integration/test_sandbox.py).
"""

from pathlib import Path
from typing import Any

import pytest
import yaml
from monai.bundle.config_parser import ConfigParser

from inference.bundles import policy
from inference.errors import ModelRefused
from tests.hostile_bundles import configurations

FILES = {"LoadImage", "LoadImaged", "SaveImage", "SaveImaged", "SaveClassificationd"}
USEFUL = (
    "torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
    "lambda x: torch.where(x[[2]] > 0, 4, torch.where(x[[0]] > 0, 1, 0))",
    "lambda x : x[1:]",
    "[1.5, 1.5, 1.5] if @helper#spatial_dims == 3 else [3.0, 3.0]",
    "@network_def.to('cpu')",
    "monai.networks.nets.resnet.resnet50(spatial_dims=3, n_input_channels=1)",
    "monai.networks.nets.resnet.ResNet(block=monai.networks.nets.resnet.ResNetBottleneck)",
    "monai.apps.detection.networks.retinanet_network.resnet_fpn_feature_extractor(@helper, 3)",
    "monai.networks.nets.resnet18(spatial_dims=3, pretrained=False)",
    "monai.networks.nets.EfficientNetBN('efficientnet-b0', pretrained=False)",
    "monai.utils.CommonKeys.IMAGE",
    "@network_def.set_box_selector_parameters(score_thresh=0.02, nms_thresh=0.22)",
    "len(@helper)",
    "np.prod([2, 3]) ** 2",
    "{'image': [i for i in range(3)]}",
    "None",
)


def disable_files(item: Any) -> Any:
    """What the loader of bundles does before it asks the policy."""
    if isinstance(item, dict):
        changed = {key: disable_files(value) for key, value in item.items()}
        return {**changed, "_disabled_": True} if item.get("_target_") in FILES else changed
    return [disable_files(one) for one in item] if isinstance(item, list) else item


@pytest.mark.shared_data
def test_the_bundles_of_the_zoo_pass_unchanged(data: Path) -> None:
    found = sorted((data / "bundles").glob("*/configs/inference.*"))
    assert len(found) == 7
    for file in found:
        tree = disable_files(yaml.safe_load(file.read_text()))
        assert policy.violations(tree) == (), file


def test_what_only_computes_passes_and_sections_that_nothing_uses_do_not_count() -> None:
    policy.check(configurations.clean())


@pytest.mark.parametrize("text", USEFUL)
def test_expressions_of_real_bundles_pass(text: str) -> None:
    tree = configurations.clean()
    tree["inferer"]["roi_size"] = f"${text}"
    policy.check(tree)


@pytest.mark.parametrize("door", configurations.EXPRESSIONS)
def test_an_expression_that_reaches_out_is_refused(door: str, tmp_path: Path) -> None:
    proof = tmp_path / "proof"
    refused(configurations.with_expression(configurations.EXPRESSIONS[door], str(proof)), proof)


@pytest.mark.parametrize("door", configurations.TARGETS)
def test_a_target_that_is_no_part_of_a_network_or_transform_is_refused(
    door: str, tmp_path: Path
) -> None:
    proof = tmp_path / "proof"
    refused(configurations.with_target(configurations.TARGETS[door], str(proof)), proof)


@pytest.mark.parametrize("door", configurations.IMPORTS)
def test_an_import_of_something_else_is_refused(door: str, tmp_path: Path) -> None:
    refused(configurations.with_import(configurations.IMPORTS[door]), tmp_path / "proof")


@pytest.mark.parametrize("user", configurations.IMPORTED_VALUES)
def test_what_an_import_gives_is_no_value(user: str, tmp_path: Path) -> None:
    proof = tmp_path / "proof"
    refused(configurations.with_imported_value(user.format(proof=proof)), proof)


def test_an_imported_name_is_judged_by_what_it_stands_for(tmp_path: Path) -> None:
    tree = configurations.with_expression("len('touch {proof}')", str(tmp_path / "proof"))
    policy.check(tree)
    refused({**tree, "imports": ["$from os import system as len"]}, tmp_path / "proof")


def refused(tree: dict[str, Any], proof: Path) -> None:
    with pytest.raises(ModelRefused, match=r"the strict policy refuses: .*--trust NAME"):
        policy.check(tree)
    assert not proof.exists()


def test_what_a_reference_leads_to_is_looked_at_too() -> None:
    tree = configurations.clean()
    tree["hidden"] = {"deeper": ["$open('x', 'w')"]}
    tree["inferer"]["roi_size"] = "@hidden::deeper#0"
    (found,) = policy.violations(tree)
    assert found.where == "hidden::deeper::0"
    assert "'open'" in found.what


def test_a_macro_of_this_configuration_is_looked_at_where_it_is_put_in() -> None:
    tree = configurations.clean()
    tree["inferer"]["roi_size"] = "%run::0"
    assert [found.where for found in policy.violations(tree)] == ["inferer::roi_size"]


def test_a_part_of_another_file_is_refused_and_not_read(tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    other.write_text('{"a": 1}')
    tree = configurations.clean()
    tree["inferer"]["roi_size"] = f"%{other}::a"
    (found,) = policy.violations(tree)
    assert "another file" in found.what


def test_items_of_one_name_are_judged_as_the_parser_takes_them() -> None:
    tree = configurations.clean()
    tree["inferer::roi_size"] = "$open('x', 'w')"
    tree["inferer"]["roi_size"] = 3
    taken = ConfigParser(tree)
    taken.parse()
    hostile = taken.ref_resolver.items["inferer::roi_size"].config != 3
    assert bool(policy.violations(tree)) == hostile


def test_a_configuration_that_contains_itself_is_refused() -> None:
    tree = configurations.clean()
    tree["inferer"]["roi_size"] = tree
    assert policy.violations(tree)


def test_a_long_or_deep_expression_is_refused() -> None:
    for text in ("1 + " * 5_000 + "1", "(" * 300 + ")" * 300, "-" * 9_000 + "1"):
        tree = configurations.clean()
        tree["inferer"]["roi_size"] = f"${text}"
        assert policy.violations(tree)
