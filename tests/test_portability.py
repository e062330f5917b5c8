"""Code that runs on one vendor's GPUs only, or on one GPU only, is found by reading; no GPU is needed for that."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ACCELERATOR = "util/runtime/device.py"  # decides for all others
NOT_OURS = {".git", ".venv", "tests", "exps", "demo", "pretrained_model"}  # tests pretend to be many machines
VISIBLE = {"CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL"}

# Dotted name, and all that it contains -> why not. Names are compared as imported, whatever they are called afterwards.
FORBIDDEN = {
    "pynvml": "NVIDIA only; use torch.cuda.mem_get_info",
    "nvidia_smi": "NVIDIA only; use torch.cuda.mem_get_info",
    "torch.backends": "use util.runtime.device.set_precision",
    "torch.set_float32_matmul_precision": "use util.runtime.device.set_precision",
    "torch.version.cuda": "None on AMD; use util.runtime.device.backend",
    "torch.version.hip": "use util.runtime.device.backend",
    "torch.cuda.get_device_capability": "NVIDIA only; use util.runtime.device.architecture",
    "torch.cuda.is_bf16_supported": "use util.runtime.device.bf16_support",
    "torch.cuda.is_tf32_supported": "use util.runtime.device.supports_tf32",
    "torch.cuda.nvtx": "NVIDIA only",
    "torch.cuda.CUDAGraph": "unchecked on AMD; use torch.compile",
    "torch.cuda.graph": "unchecked on AMD; use torch.compile",
    "torch.cuda.make_graphed_callables": "unchecked on AMD; use torch.compile",
    "torch.utils.cpp_extension": "compiled for one vendor",
    "torch.cuda.amp": "use torch.autocast",
}
FORBIDDEN_TEXT = {
    r"^cuda:\d+$": "one GPU for all processes; use util.runtime.device.choose_device",
    r"nvidia-smi|rocm-smi": "one vendor only; use util.runtime.device",
    r"^(mpi|ucc)$": "no backend on AMD; use util.runtime.device.group_backend",
}
FORBIDDEN_IN_SCRIPTS = {
    r"\b(" + "|".join(sorted(VISIBLE)) + r")=": "written by the scheduler alone",
    r"\bnvidia-smi\b|\bpynvml\b": "NVIDIA only; use python -m util.runtime.device",
}
NVIDIA_WHEELS = re.compile(
    r"^(nvidia-|cupy|cuda-|pycuda|pynvml|tensorrt|torch-tensorrt|flash-attn|xformers|apex|bitsandbytes|numba-cuda)"
)


def aliases(tree: ast.AST) -> dict[str, str]:
    """Name in a file -> the dotted name that it was imported as."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {
                a.asname or a.name.partition(".")[0]: a.name if a.asname else a.name.partition(".")[0]
                for a in node.names
            }
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return found


def names(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and full dotted name of everything that is imported or looked up."""
    known = aliases(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Attribute):
            first, _, rest = ast.unparse(node).partition(".")
            yield node.lineno, f"{known.get(first, first)}.{rest}"


def texts(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and value of every text but docstrings."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = {id(n.body[0].value) for n in ast.walk(tree) if isinstance(n, documented) and ast.get_docstring(n)}  # type: ignore[attr-defined]
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.lineno, node.value


def calls(node: ast.Call) -> Iterator[str]:
    """What is wrong with a call, whatever the object it is made on."""
    name = ast.unparse(node.func).rpartition(".")[2]
    given = [ast.unparse(value) for value in (*node.args, *(keyword.value for keyword in node.keywords))]
    if name == "cuda" and isinstance(node.func, ast.Attribute):
        yield "cuda(): use to(device)"
    if name == "set_device" and any("local_rank" in text for text in given):
        yield "set_device(local_rank): wrong where each task sees one GPU; use util.runtime.device.choose_device"
    if name == "device" and any(re.match(r"'(rocm|hip)\b", text) for text in given):
        yield "no device of PyTorch; AMD GPUs are cuda"
    is_environment = name in ("putenv", "unsetenv", "setenv", "delenv") or "environ" in ast.unparse(node.func)
    if is_environment and name not in ("get", "getenv") and given and given[0].strip("'\"") in VISIBLE:
        yield f"{given[0]}: written by the scheduler alone"
    yield from (f"{k.arg}: written by the scheduler alone" for k in node.keywords if k.arg in VISIBLE)


def writes(node: ast.AST) -> Iterator[str]:
    """Variables of visible devices that are stored or deleted under a literal key."""
    keys: list[ast.expr | None] = []
    if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store | ast.Del):
        keys = [node.slice]
    elif isinstance(node, ast.Dict):
        keys = list(node.keys)
    for key in keys:
        if isinstance(key, ast.Constant) and key.value in VISIBLE:
            yield f"{key.value}: written by the scheduler alone"


def offences(source: str) -> list[str]:
    """What ties a Python source to one vendor or one GPU, once per line and reason."""
    tree = ast.parse(source)
    found = []
    for line, name in names(tree):
        found += [(line, f"{n}: {why}") for n, why in FORBIDDEN.items() if f"{name}.".startswith(f"{n}.")]
    for line, text in texts(tree):
        found += [(line, f"{text!r}: {why}") for pattern, why in FORBIDDEN_TEXT.items() if re.search(pattern, text)]
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 0)
        found += [(line, what) for what in (*writes(node), *(calls(node) if isinstance(node, ast.Call) else ()))]
    return [f"{line}: {what}" for line, what in sorted(set(found))]


def script_offences(text: str) -> list[str]:
    """The same for scripts and for the data that scripts are rendered from; comments may say anything."""
    lines = [line.partition("#")[0] if line.lstrip().startswith("#") else line for line in text.splitlines()]
    return [
        f"{number}: {why}"
        for number, line in enumerate(lines, start=1)
        for pattern, why in FORBIDDEN_IN_SCRIPTS.items()
        if re.search(pattern, line)
    ]


def foreign_wheels(text: str) -> list[str]:
    """Requirements that exist for NVIDIA GPUs only."""
    return [line for line in map(str.strip, text.splitlines()) if NVIDIA_WHEELS.match(line.lower())]


def files(*suffixes: str) -> list[str]:
    found = (
        path
        for top in ROOT.iterdir()
        if top.name not in NOT_OURS
        for path in ([top] if top.is_file() else top.rglob("*"))
    )
    return sorted(path.relative_to(ROOT).as_posix() for path in found if path.suffix in suffixes and path.is_file())


def test_only_the_accelerator_module_knows_the_vendor():
    sources = [file for file in files(".py") if file != ACCELERATOR]
    assert len(sources) > 60
    assert [f"{file}:{what}" for file in sources for what in offences((ROOT / file).read_text())] == []


def test_the_accelerator_module_is_one_that_needs_the_exemption():
    assert any("torch.backends" in what for what in offences((ROOT / ACCELERATOR).read_text()))


def test_scripts_and_profiles_leave_the_visible_devices_alone():
    texts_of_ours = files(".sh", ".sbatch", ".toml", ".json", ".def", ".yaml", ".yml")
    assert len(texts_of_ours) > 5
    assert [f"{file}:{what}" for file in texts_of_ours for what in script_offences((ROOT / file).read_text())] == []


def test_nothing_is_compiled_for_one_vendor_and_no_requirement_is_nvidias():
    assert files(".cu", ".cuh", ".hip", ".ptx") == []
    requirements = [file for file in files(".txt") if Path(file).name.startswith("requirements")]
    assert {"requirements.txt", "requirements-dev.txt", "requirements-rocm.txt"} <= set(requirements)
    assert [wheel for file in requirements for wheel in foreign_wheels((ROOT / file).read_text())] == []


@pytest.mark.parametrize(
    "source",
    [
        "import pynvml",
        "import torch\ntorch.backends.cuda.matmul.allow_tf32 = True",
        "import torch.backends.cudnn as cudnn",
        "from torch.backends import cudnn",
        "from torch import backends as b",
        "import torch as t\nt.set_float32_matmul_precision('high')",
        "import torch\ngraph = torch.cuda.CUDAGraph()",
        "from torch.cuda import CUDAGraph",
        "import torch\ntorch.cuda.make_graphed_callables",
        "import torch\nmajor, _ = torch.cuda.get_device_capability()",
        "import torch\nif torch.version.cuda: pass",
        "from torch.version import hip",
        "from torch.utils.cpp_extension import load",
        "import torch\nscaler = torch.cuda.amp.GradScaler",
        "device = 'cuda:0'",
        "def f(device='cuda:3'): pass",
        "device = torch.device('rocm')",
        "device = torch.device('hip:1')",
        "run(['nvidia-smi', '-q'])",
        "run('nvidia-smi -q')",
        "dist.init_process_group('mpi')",
        "image = image.cuda()",
        "model.to(x).cuda(non_blocking=True)",
        "torch.cuda.set_device(local_rank)",
        "torch.cuda.set_device(place.local_rank)",
        "torch.cuda.set_device(device=int(environment['local_rank']))",
        "os.environ['CUDA_VISIBLE_DEVICES'] = '0'",
        "del os.environ['ROCR_VISIBLE_DEVICES']",
        "os.environ.setdefault('HIP_VISIBLE_DEVICES', '0')",
        "os.environ.pop('GPU_DEVICE_ORDINAL', None)",
        "os.putenv('CUDA_VISIBLE_DEVICES', '0')",
        "run(command, env={**os.environ, 'CUDA_VISIBLE_DEVICES': '0'})",
        "os.environ.update(CUDA_VISIBLE_DEVICES='0')",
    ],
)
def test_offenders_are_found(source):
    assert offences(source)


@pytest.mark.parametrize(
    "source",
    [
        "import torch\ndevice = torch.device('cuda', local_rank % torch.cuda.device_count())",
        "image = image.to(device)\ntorch.cuda.synchronize(device)\ntorch.cuda.mem_get_info(device)",
        "if device.type == 'cuda':\n    torch.cuda.set_device(self.device)",
        "seen = os.environ.get('CUDA_VISIBLE_DEVICES')",
        "lists = dict(seen)\nfirst = lists.pop('ROCR_VISIBLE_DEVICES')\nif backend() == 'rocm': pass",
        "NAMES = ('CUDA_VISIBLE_DEVICES', 'ROCR_VISIBLE_DEVICES')",
        "def f():\n    'Never writes CUDA_VISIBLE_DEVICES, calls nvidia-smi or takes cuda:0.'",
        "import torch\nwith torch.autocast(device.type, torch.bfloat16): pass",
    ],
)
def test_the_portable_are_left_alone(source):
    assert offences(source) == []


@pytest.mark.parametrize("line", ["export CUDA_VISIBLE_DEVICES=0", "ROCR_VISIBLE_DEVICES=1 python x.py", "nvidia-smi"])
def test_offending_scripts_are_found(line):
    assert script_offences(f"set -e\n{line}\n") == [script_offences(line)[0].replace("1:", "2:")]
    assert script_offences(f"# {line}\n  # {line}\necho $CUDA_VISIBLE_DEVICES") == []


def test_foreign_wheels_are_found():
    assert foreign_wheels("torch==2\nnvidia-ml-py==12\ncupy-cuda12x\nxformers\n# nvidia-x\n") == [
        "nvidia-ml-py==12",
        "cupy-cuda12x",
        "xformers",
    ]
