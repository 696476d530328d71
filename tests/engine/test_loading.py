"""How a model comes to run: warm starts, and what happens where something is missing or short."""

import functools
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import textwrap
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from rorqual.checkpoint import save_model
from rorqual.checkpoint.convert import convert
from rorqual.checkpoint.reading import CheckpointReader
from rorqual.checkpoint.weights import Weights, open_weights
from rorqual.config.engine import EngineConfig
from rorqual.engine import loading
from rorqual.engine.llm import LLM
from rorqual.engine.loading import block_bytes, loading_bytes, packed_cache, plan_blocks
from rorqual.engine.requests import SamplingParams
from rorqual.engine.rollouts import TrainerWeights
from rorqual.errors import CapacityError, EngineError
from rorqual.kernels import library as library_module
from rorqual.kernels import packed_file
from rorqual.kernels.library import InstructionSet, native_library
from rorqual.kernels.memory import FreeMemory, free_memory
from rorqual.kernels.packed_cache import PackedCache
from rorqual.model import Transformer, initialize
from tests.conftest import IN_CI, small_config
from tests.engine.tokenizers import small_tokenizer

ROOT = Path(__file__).resolve().parents[2]
GREEDY = SamplingParams(max_tokens=12, temperature=0.0, ignore_eos=True)
CACHE_BYTES = 4 << 20
PLENTY = FreeMemory(1 << 40, "a large machine")

needs_kernels = pytest.mark.skipif(
    native_library() is None and not IN_CI, reason="the native kernels are not built"
)


@pytest.fixture
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's cache, empty, and one that keeps small models too."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    small_too = functools.partial(PackedCache, fewest_bytes=0, spare_bytes=0)
    monkeypatch.setattr(loading, "PackedCache", small_too)
    return tmp_path / "cache" / "rorqual" / "packed"


def answer(model: Path, **options: object) -> list[int]:
    with LLM(model, max_cache_bytes=CACHE_BYTES, **options) as llm:
        return llm.generate(["def main("], GREEDY)[0].outputs[0].token_ids


def python(code: str, *arguments: object) -> "subprocess.CompletedProcess[str]":
    """Run a program in a process of its own, without PyTorch."""
    begin = "import sys; sys.modules['torch'] = None\n"
    return subprocess.run(
        [sys.executable, "-c", begin + textwrap.dedent(code), *map(str, arguments)],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip


@needs_kernels
def test_a_second_start_reads_no_tensor(
    tiny_model: Path, cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = answer(tiny_model)
    (entry,) = cache_folder.iterdir()
    with monkeypatch.context() as patch:
        patch.setattr(CheckpointReader, "read", lambda *_: pytest.fail("a tensor was read"))
        assert answer(tiny_model) == first
        with pytest.raises(BaseException, match="a tensor was read"):
            answer(tiny_model, packed_cache="off")
    assert list(cache_folder.iterdir()) == [entry]


@needs_kernels
def test_damage_found_beside_the_engine_ends_what_runs_and_heals(
    tiny_model: Path, cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packed_file, "BLOCK_BYTES", 4096)
    monkeypatch.setattr(packed_file, "CHECKED_BYTES", 4096)
    expected = answer(tiny_model)
    (entry,) = cache_folder.iterdir()
    content = bytearray(entry.read_bytes())
    content[len(content) // 2] ^= 1
    entry.write_bytes(content)
    with LLM(tiny_model, max_cache_bytes=CACHE_BYTES) as llm:
        for thread in threading.enumerate():
            if "_check_rest" in thread.name:
                thread.join(30)
        with pytest.raises(EngineError, match=r"packed anew; .* ask again"):
            llm.generate(["def main("], GREEDY)
        assert llm.generate(["def main("], GREEDY)[0].outputs[0].token_ids == expected
    assert not entry.exists()


@needs_kernels
def test_off_keeps_nothing(tiny_model: Path, cache_folder: Path) -> None:
    answer(tiny_model, packed_cache="off")
    assert not cache_folder.exists()


@needs_kernels
def test_a_changed_checkpoint_is_never_taken_for_the_old_one(
    tiny_model: Path, cache_folder: Path, tmp_path: Path
) -> None:
    path = tmp_path / "model"
    shutil.copytree(tiny_model, path)
    old = answer(path)
    file = path / "model.safetensors"
    times = file.stat()
    other = Transformer(open_weights(path).config)  # type: ignore[arg-type]
    initialize(other, 1)
    save_model(other, small_tokenizer(), path)
    assert file.stat().st_size == times.st_size
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))  # what `cp -p` and rsync do
    changed = answer(path)
    assert changed == answer(path, packed_cache="off") != old
    assert len(list(cache_folder.iterdir())) == 2


def test_files_know_which_ones_they_are(tiny_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "model"
    shutil.copytree(tiny_model, path)
    gguf = tmp_path / "model.gguf"
    convert(path, gguf, to="gguf", dtype="bf16", on_progress=lambda *_: None)
    for weights, file in (
        (open_weights(path), path / "model.safetensors"),
        (open_weights(gguf), gguf),
    ):
        mapped = weights.identity()
        assert str(file.resolve()) in [entry[0] for entry in mapped]
        os.rename(file, file.with_suffix(".old"))
        shutil.copy(file.with_suffix(".old"), file)
        assert weights.identity() == mapped  # of what was opened, not of what has its name now
        assert open_weights(weights.path).identity() != mapped


def test_weights_that_live_in_memory_are_not_kept(tiny_model: Path) -> None:
    config = EngineConfig.model_validate({})
    assert packed_cache(TrainerWeights(Transformer(small_config())), config) is None
    assert packed_cache(open_weights(tiny_model), config) is not None


def test_a_user_without_a_home_has_no_cache(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    assert packed_cache(open_weights(tiny_model), EngineConfig.model_validate({})) is None


# Memory


def machine(root: Path, files: dict[str, str]) -> Path:
    """A folder with what /proc and /sys say on some other machine."""
    files = {"proc/meminfo": "MemTotal: 900 kB\nMemAvailable: 800 kB\n"} | files
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="ascii")
    return root


GROUP = "sys/fs/cgroup/user.slice/job"
STAT = "anon 300000\ninactive_file 80000\nactive_file 20000\n"


@pytest.mark.parametrize(
    ("files", "num_bytes", "limit"),
    [
        ({}, 819200, "MemAvailable"),
        (  # version 2: the group's own limit; its 100000 bytes of file pages can go
            {
                "proc/self/cgroup": "0::/user.slice/job\n",
                f"{GROUP}/memory.max": "500000\n",
                f"{GROUP}/memory.current": "400000\n",
                f"{GROUP}/memory.stat": STAT,
            },
            200000,
            "500000",
        ),
        (  # the tighter limit of the group above it, which the group's own "max" hides
            {
                "proc/self/cgroup": "0::/user.slice/job\n",
                f"{GROUP}/memory.max": "max\n",
                f"{GROUP}/memory.current": "1000\n",
                "sys/fs/cgroup/user.slice/memory.max": "max\n",
                "sys/fs/cgroup/user.slice/memory.high": "600000\n",
                "sys/fs/cgroup/user.slice/memory.current": "590000\n",
            },
            10000,
            "user.slice",
        ),
        (  # a container sees its own group as the root
            {
                "proc/self/cgroup": "0::/\n",
                "sys/fs/cgroup/memory.max": "700000\n",
                "sys/fs/cgroup/memory.current": "800000\n",
            },
            0,
            "700000",
        ),
        (  # version 1, where the group's path is not visible from inside
            {
                "proc/self/cgroup": "5:cpu,cpuacct:/d/x\n4:memory:/d/x\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "500000\n",
                "sys/fs/cgroup/memory/memory.usage_in_bytes": "300000\n",
                "sys/fs/cgroup/memory/memory.stat": "inactive_file 7\ntotal_inactive_file 50000\n",
            },
            250000,
            "500000",
        ),
        (  # version 1's way to say that there is no limit
            {
                "proc/self/cgroup": "4:memory:/\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
                "sys/fs/cgroup/memory/memory.usage_in_bytes": "300000\n",
            },
            819200,
            "MemAvailable",
        ),
    ],
)
def test_the_tightest_limit_counts(
    tmp_path: Path, files: dict[str, str], num_bytes: int, limit: str
) -> None:
    found = free_memory(machine(tmp_path, files))
    assert found is not None and found.num_bytes == num_bytes and limit in found.limit


def test_this_machine_says_what_it_has(tmp_path: Path) -> None:
    found = free_memory()
    assert found is not None and 0 < found.num_bytes < 1 << 50
    assert free_memory(tmp_path) is None  # a system that says nothing


def test_the_cache_takes_what_the_weights_leave(tiny_model: Path) -> None:
    weights = open_weights(tiny_model)
    per_block = block_bytes(weights.config, "bf16")
    config = EngineConfig.model_validate({"cache_share": 0.5})
    needed = loading_bytes([_size(weights, name) for name in weights.names()], "bf16")
    blocks = [
        plan_blocks(weights, config, "bf16", FreeMemory(needed + spare * per_block, "a container"))
        for spare in (2, 20, 200)
    ]
    assert blocks == [1, 10, 100]
    with pytest.raises(CapacityError, match="holds no block"):
        plan_blocks(weights, config, "bf16", FreeMemory(needed + per_block, "a container"))
    asked = EngineConfig.model_validate({"max_cache_bytes": 21 * per_block})
    with pytest.raises(CapacityError, match="lower max_cache_bytes"):
        plan_blocks(weights, asked, "bf16", FreeMemory(needed + 20 * per_block, "a container"))
    assert plan_blocks(weights, asked, "bf16", PLENTY) == 21


def _size(weights: Weights, name: str) -> int:
    rows, *columns = weights.shape(name)
    return rows * (columns[0] if columns else 1)


def test_weights_that_do_not_fit_are_refused_with_what_would(tiny_model: Path) -> None:
    weights = open_weights(tiny_model)
    sizes = [_size(weights, name) for name in weights.names()]
    config = EngineConfig.model_validate({})
    free = FreeMemory(loading_bytes(sizes, "int8") + 1, "the container's limit")
    with pytest.raises(CapacityError, match=r"\(the container's limit\); set precision to int8"):
        plan_blocks(weights, config, "fp32", free)
    with pytest.raises(CapacityError, match="choose a smaller model"):
        plan_blocks(weights, config, "bf16", FreeMemory(1000, "the container's limit"))


@needs_kernels
def test_a_model_larger_than_the_process_may_hold_is_refused_before_it_is_read() -> None:
    """With a real limit, RLIMIT_AS: refused in bf16, and served in the precision it names."""
    code = """
        import json, re, resource
        from rorqual.config import DenseConfig
        from rorqual.engine.llm import LLM
        from rorqual.engine.random_model import RandomWeights
        from rorqual.engine.requests import SamplingParams
        from rorqual.errors import CapacityError, EngineError

        config = DenseConfig.model_validate({
            "model_type": "llama", "vocab_size": 8192, "hidden_size": 1024,
            "intermediate_size": 4096, "num_hidden_layers": 3, "num_attention_heads": 8,
            "num_key_value_heads": 8, "head_dim": 128, "max_position_embeddings": 512,
            "eos_token_id": 1,
        })
        weights = RandomWeights(config)
        reads = []
        read = weights.read
        weights.read = lambda name: reads.append(name) or read(name)
        size = int(re.search(r"VmSize:\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024
        limit = size + 405_000_000
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        options = {"num_threads": 1, "max_num_seqs": 2, "max_batch_tokens": 64}
        try:
            LLM.from_source(weights, None, precision="bf16", **options)
        except CapacityError as error:
            message = str(error)
        num_reads = len(reads)
        precision = re.search("set precision to (\\\\w+)", message)[1]
        with LLM.from_source(weights, None, precision=precision, **options) as llm:
            params = SamplingParams(max_tokens=2, temperature=0.0, ignore_eos=True)
            ids = llm.generate([[5, 6]], params)[0].outputs[0].token_ids
        print(json.dumps([message, num_reads, precision, len(ids)]))
    """
    done = python(code)
    assert done.returncode == 0, done.stderr
    message, num_reads, precision, num_ids = json.loads(done.stdout)
    assert "RLIMIT_AS" in message and num_reads == 0
    assert (precision, num_ids) == ("int8", 2)


# What is missing


@needs_kernels
def test_without_avx512_the_same_answers(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = native_library()
    assert library is not None
    expected = answer(tiny_model, precision="fp32")
    has_avx2 = "avx2" in library.instruction_sets()
    narrower: tuple[InstructionSet, ...] = ("portable", "avx2") if has_avx2 else ("portable",)
    for isa in narrower:
        monkeypatch.setattr(loading, "native_library", functools.partial(library.using, isa=isa))
        assert answer(tiny_model, precision="fp32") == expected
        for precision in ("bf16", "int8", "int4"):
            assert len(answer(tiny_model, precision=precision)) == GREEDY.max_tokens


@needs_kernels
def test_on_one_core_one_thread_and_the_same_answers(tiny_model: Path) -> None:
    code = """
        import os
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        import json
        from rorqual import LLM, SamplingParams
        from rorqual.kernels.library import native_library
        params = SamplingParams(max_tokens=12, temperature=0.0, ignore_eos=True)
        with LLM(sys.argv[1], max_cache_bytes=4 << 20) as llm:
            ids = llm.generate(["def main("], params)[0].outputs[0].token_ids
        threads = len(os.listdir("/proc/self/task"))
        print(json.dumps([ids, native_library().num_threads, threads]))
    """
    done = python(code, tiny_model)
    assert done.returncode == 0, done.stderr
    ids, num_threads, num_tasks = json.loads(done.stdout)
    assert ids == answer(tiny_model) and num_threads == 1
    assert num_tasks == 1  # no worker that would fight for the core


@pytest.fixture
def without_library(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(library_module, "find_library", lambda directories: None)
    native_library.cache_clear()
    yield
    native_library.cache_clear()


@needs_kernels
def test_without_kernels_one_warning_and_the_same_answers(
    tiny_model: Path, request: pytest.FixtureRequest
) -> None:
    expected = answer(tiny_model, precision="fp32")
    request.getfixturevalue("without_library")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert answer(tiny_model) == expected
    assert len(caught) == 1 and "slower torch path" in str(caught[0].message)


def test_without_kernels_and_pytorch_a_refusal_says_what_to_install(tiny_model: Path) -> None:
    code = """
        from rorqual.cli.main import main
        from rorqual.kernels import library
        library.find_library = lambda directories: None
        sys.argv = ["rorqual", "generate", sys.argv[1], "a"]
        main()
    """
    done = python(code, tiny_model)
    assert done.returncode == 1, done.stderr
    assert "install a C++ compiler and Rorqual again, or PyTorch" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_a_compiler_the_build_goes_on_without_kernels(tmp_path: Path) -> None:
    tools = [shutil.which(name, path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
             for name in ("cmake", "ninja")]  # fmt: skip
    if None in tools:
        pytest.fail("no cmake or ninja") if IN_CI else pytest.skip("no cmake or ninja")
    cmake, ninja = tools
    assert cmake is not None
    (tmp_path / "bin").mkdir()
    environment = {"PATH": str(tmp_path / "bin"), "HOME": str(tmp_path)}
    if importlib.util.find_spec("cmake") is not None:
        environment["PYTHONPATH"] = os.pathsep.join(sys.path[1:])
    configure = [cmake, "-S", str(ROOT), "-B", str(tmp_path / "build"), "-G", "Ninja",
                 f"-DCMAKE_MAKE_PROGRAM={ninja}"]  # fmt: skip
    done = subprocess.run(configure, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "no C++ compiler found; building without native kernels" in done.stderr
    wheel = ["--install", str(tmp_path / "build"), "--prefix", str(tmp_path / "wheel")]
    subprocess.run([cmake, *wheel], env=environment, check=True, capture_output=True)
    assert (tmp_path / "wheel" / "rorqual" / "configs").is_dir()
    assert not list((tmp_path / "wheel").rglob("*.so"))
