"""Configurations of bundles that would write `proof`, each through another door."""

from typing import Any

WRITE = "open('{proof}', 'w')"
CHAIN = "().__class__.__mro__[1].__subclasses__()"
IMPORT = "__import__('os').system('touch {proof}')"

EXPRESSIONS = {
    "open": WRITE,
    "import": IMPORT,
    "attribute chain": CHAIN,
    "attribute chain of a reference": "@helper.__class__.__init__.__globals__",
    "private attribute of a module": "torch.__builtins__",
    "module of a module": "monai.transforms.os.system('touch {proof}')",
    "module of a class's module": "monai.transforms.compose.warnings.sys.modules",
    "getattr": "getattr((), '__cl' + 'ass__')",
    "setattr": "setattr(torch.backends.cudnn, 'benchmark', True)",
    "eval": "eval('1')",
    "format": "'{{0.__class__.__mro__}}'.format(())",
    "format of str": "str.format('{{0.__class__}}', ())",
    "format_map": "'{{a.__class__}}'.format_map({{'a': ()}})",
    "f-string": "f'{{().__class__}}'",
    "f-string's format": "f'{{1:{{().__class__}}}}'",
    "lambda": "lambda x: x.__class__",
    "lambda's default": "lambda x=open('{proof}', 'w'): x",
    "lambda that takes builtins": "lambda: __builtins__",
    "comprehension": "[c for c in ().__class__.__base__.__subclasses__()]",
    "comprehension that renames": "[torch.system('touch {proof}') for torch in [0]]",
    "nested comprehension": "[[x.__class__ for x in y] for y in [[1]]]",
    "condition of a comprehension": "[1 for x in [1] if open('{proof}', 'w')]",
    "walrus": "(t := ().__class__)",
    "generator's frame": "(x for x in [1]).gi_frame",
    "await": "await x",
    "yield": "lambda: (yield)",
    "builtins": "__builtins__['open']('{proof}', 'w')",
    "global references": "__local_refs",
    "reference that is not written as one": "__local_refs['imports::0']('touch {proof}')",
    "torch.load": "torch.load('{proof}')",
    "torch.save": "torch.save(1, '{proof}')",
    "torch.hub": "torch.hub.load('x', 'y')",
    "torch.ops": "torch.ops.aten.save(torch.zeros(1), '{proof}')",
    "numpy.save": "np.save('{proof}', 1)",
    "numpy.memmap": "np.memmap('{proof}', mode='w+', shape=(1,))",
    "method that writes": "np.zeros(1).tofile('{proof}')",
    "method of a tensor that writes": "torch.zeros(1).numpy().dump('{proof}')",
    "functools to write": "functools.partial(open, '{proof}', 'w')()",
    "os.system": "os.system('touch {proof}')",
    "os.path's os": "os.path.os.system('touch {proof}')",
    "MONAI's own eval": "monai.bundle.ConfigParser({{'a': '$1'}})",
    "MONAI's instantiate": "monai.utils.instantiate('os.system', 'default', command='x')",
    "MONAI's download": "monai.apps.utils.download_url('http://127.0.0.1/', '{proof}')",
    "writing transform": "monai.transforms.SaveImage('{proof}')",
    "arguments by dictionary": "monai.networks.nets.UNet(**@helper)",
    "reference that closes a string": "'@' + open('{proof}', 'w').name + '@'",
    "hook for every module": "torch.nn.modules.module.register_module_forward_hook(len)",
    "weights from elsewhere by position": "monai.networks.nets.resnet18(True)",
    "weights from elsewhere by stars": "monai.networks.nets.resnet18(*[True])",
    "weights from elsewhere by dictionary":
        "monai.networks.nets.resnet18(**{{'pretrained': True}})",
    "weights from elsewhere by map": "list(map(monai.networks.nets.resnet18, [True]))",
    "weights from elsewhere unless told": "monai.networks.nets.EfficientNetBN('efficientnet-b0')",
    "weights from elsewhere by another name":
        "(lambda f: f(True))(monai.networks.nets.resnet18)",
    "large power": "9 ** 9 ** 9",
    "not python": "import",
    "two statements": "import os; os.system('touch {proof}')",
}  # fmt: skip
TARGETS = {
    "builtin": {"_target_": "open", "file": "{proof}", "mode": "w"},
    "eval": {"_target_": "eval", "__source": "1"},
    "os.system": {"_target_": "os.system", "command": "touch {proof}"},
    "subprocess": {"_target_": "subprocess.Popen", "args": ["touch", "{proof}"]},
    "module of a module": {"_target_": "monai.transforms.os.system", "command": "touch {proof}"},
    "private": {"_target_": "monai.transforms.Compose.__init__.__globals__"},
    "method of a class": {"_target_": "monai.transforms.Compose.get_index_of_first"},
    "MONAI function": {"_target_": "download_url", "url": "http://127.0.0.1/", "filepath": "x"},
    "bundle runner": {"_target_": "monai.bundle.run", "config_file": "{proof}"},
    "expression": {"_target_": "$open", "file": "{proof}", "mode": "w"},
    "reference": {"_target_": "@helper"},
    "debugger": {"_target_": "Compose", "_mode_": "debug"},
    "breakpoint": {"_target_": "Compose", "_debug_": True},
    "own code": {"_target_": "scripts.net.Net"},
    "requires": {"_target_": "Compose", "_requires_": "$open('{proof}', 'w')"},
    "disabled by code": {"_target_": "LoadImaged", "_disabled_": "$open('{proof}', 'w')"},
    "argument of something disabled": {
        "_target_": "LoadImaged", "_disabled_": True, "keys": "$open('{proof}', 'w')",
    },
    "reader": {"_target_": "LoadImaged", "keys": "image"},
    "writer": {"_target_": "monai.transforms.SaveImageD", "keys": "pred"},
    "merger by name": {"_target_": "PatchInferer", "merger_cls": "os.system"},
    "torchvision by name": {"_target_": "TorchVision", "name": "Lambda"},
    "weights from elsewhere": {"_target_": "DenseNet121", "pretrained": True},
    "weights from elsewhere by their name": {
        "_target_": "TorchVisionFCModel", "model_name": "resnet18", "weights": "DEFAULT",
    },
    "weights from elsewhere unless told": {
        "_target_": "EfficientNetBN", "model_name": "efficientnet-b0",
    },
    "hook for every module": {
        "_target_": "torch.nn.modules.module.register_module_forward_hook", "hook": "$len",
    },
    "the whole configuration": {"_target_": "Compose", "transforms": "@"},
}  # fmt: skip
IMPORTS = {
    "own code": "$import scripts",
    "from own code": "$from scripts.net import Net",
    "relative": "$from . import net",
    "subprocess": "$import subprocess",
    "socket": "$import socket as np",
    "renames": "$import os as torch",
}


def with_expression(text: str, proof: str) -> dict[str, Any]:
    """A configuration whose preprocessing has this expression as an argument."""
    tree = clean()
    tree["preprocessing"]["map_items"] = f"${text.format(proof=proof)}"
    return tree


def with_target(table: dict[str, Any], proof: str) -> dict[str, Any]:
    """A configuration whose preprocessing has this component."""
    tree = clean()
    filled = {
        key: value.format(proof=proof) if isinstance(value, str) else value
        for key, value in table.items()
    }
    tree["preprocessing"]["transforms"] = [filled]
    return tree


def with_imported_value(user: Any) -> dict[str, Any]:
    """A configuration that imports what may be imported, and takes it for a value."""
    tree = {**clean(), "imports": ["$from os import system"], "act": "$from os import system"}
    return {**tree, "all": ["@act"], "inferer": {"_target_": "Lambda", "func": user}}


IMPORTED_VALUES = (
    "@act",
    "@imports::0",
    "@imports",
    "@all",
    "$@act",
    "$@act('touch {proof}')",
    "$@all[0]('touch {proof}')",
    "$__local_refs['act']('touch {proof}')",
    "$__loc\uff41l_refs['act']('touch {proof}')",
    "$from os import system",
)


def with_import(statement: str) -> dict[str, Any]:
    """A configuration that imports."""
    return {**clean(), "imports": [statement]}


def clean() -> dict[str, Any]:
    """One that only computes, and has a section that nothing uses and that does anything."""
    return {
        "helper": {"spatial_dims": 2},
        "network_def": {"_target_": "UNet", "spatial_dims": 2, "in_channels": 1,
                        "out_channels": 2, "channels": [4, 8], "strides": [2]},
        "preprocessing": {"_target_": "Compose", "transforms": []},
        "inferer": {"_target_": "SimpleInferer"},
        "postprocessing": {"_target_": "Compose", "transforms": []},
        "run": ["$__import__('os').system('true')"],
        "evaluator": {"_target_": "os.system"},
    }  # fmt: skip
