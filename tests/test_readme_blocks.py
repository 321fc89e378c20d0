"""The README's commands, block after block in a fresh clone, as someone new to it types them."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from conftest import make_tokenizer
from toy_workspace import environment

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```bash\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)

# Hours of computing. Their options are checked all the same: Typer reads a line before it helps.
TOO_LONG = (
    "lead compare --preset reference",
    "lead compare --preset confirm-clean",
    "lead fidelity --rounds 12",
)
# What cannot be done as printed, and what is done in its place.
INSTEAD = {
    "make test\n": "",  # of which this is a part
    "Qwen/Qwen2.5-0.5B-Instruct": "tiny-model",  # a hub's
    "lead compare --set": "lead compare --set compare.seeds='[0]' --set",  # of three
}
RECORDS = 120  # of a reader's own, in each of two sources


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A fresh clone of what is committed, installed, with the data and the model a reader brings."""
    from test_method_version import make_lively_model  # to the other one all records are alike

    folder = tmp_path_factory.mktemp("newcomer") / "lead"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
    (folder / ".venv").mkdir()
    (folder / ".venv/bin").symlink_to(Path(sys.executable).parent)
    (folder / ".venv/.installed").touch()  # newer than what it was installed from, for make
    capitals = [
        {"instruction": f"What is the capital of country {i}?", "output": f"City {i % 40}."}
        for i in range(RECORDS)
    ]
    lines = [json.dumps(record) for record in capitals]
    (folder / "my_data.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    sums = pd.DataFrame({"prompt": [f"{i} + {i}?" for i in range(RECORDS)]})
    sums["response"] = [f"That makes {2 * i}." for i in range(RECORDS)]
    (folder / "more").mkdir()
    sums.to_parquet(folder / "more/sums.parquet")
    make_lively_model().save_pretrained(folder / "tiny-model")
    make_tokenizer().save_pretrained(folder / "tiny-model")
    return folder


def type_in(clone: Path, block: str) -> str:
    """Run a block in one shell that ends at the first failure; return all that it printed."""
    done = subprocess.run(
        ["bash", "-e", "-c", block],
        cwd=clone,
        env=environment(PYTHONPATH=str(clone), MLFLOW_TRACKING_URI=""),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=3600,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.splitlines()[0])
def test_a_block_of_commands_runs_and_leaves_what_the_readme_promises(block, clone):
    if block.startswith(TOO_LONG):
        assert "Usage: lead" in type_in(clone, f"{block.strip()} --help")
        return
    for printed, done in INSTEAD.items():
        block = block.replace(printed, done)
    output = type_in(clone, block)
    assert "Traceback" not in output
    if "make demo" in block:
        table = re.search(r"^```\n(held-out loss, base .*?)^```$", README, re.M | re.S)
        assert table, "the README shows what the demo ends in"
        for row in table[1].splitlines():
            assert re.split(r"\s{2,}", row)[0] in output
        assert (clone / "artifacts/report/page/index.html").is_file()
    if "lead doctor" in block:
        assert f"{RECORDS} " in output
    if "lead compare" in block:
        assert "| `lead` | 1 |" in output
    if "lead export" in block:
        manifest = json.loads((clone / "artifacts/train/manifest.json").read_text())
        lines = (clone / "export/train.jsonl").read_text(encoding="utf-8").splitlines()
        assert len(lines) == manifest["distinct"] > 0
