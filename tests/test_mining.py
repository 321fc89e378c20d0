"""Records from docstrings: what is taken, how it is cleaned, and that it is always the same."""

import ast
import importlib.metadata
import platform
import sys
import textwrap
import time
from collections import Counter

import pytest

from lead_core.errors import LeadError
from lead_core.mining import mine, package_version
from lead_core.records import convert

BODY = "\n    total = 0\n    for part in parts:\n        total = total + part\n    return total\n"


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Return a function that writes modules of a package `mined_pkg` and mines it."""
    monkeypatch.syspath_prepend(tmp_path)

    def mined(files=None, **modules):
        for name, text in {**(files or {}), **{f"{n}.py": t for n, t in modules.items()}}.items():
            path = tmp_path / "mined_pkg" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text))
        return list(mine(["mined_pkg"]))

    return mined


def documented(docstring, name="f"):
    return f'def {name}(parts):\n    """{docstring}"""{BODY}'


def too_long_to_show(docstring, name="f"):
    return documented(docstring, name).replace("    total = 0\n", "    total = 0\n" * 40)


def test_each_kind_shows_what_it_asks_for_and_hides_what_it_asks(package):
    described = "Return the sum of the given parts as a number."
    whole = "".join(
        documented(f"{described} Way {i}.", f"f{i}").replace("total", f"t{i}") for i in range(40)
    )
    records = package(a=whole)
    by_kind = {record.kind: record for record in records}
    assert set(by_kind) >= {"explain", "document", "implement"}
    for record in records:
        name = record.function.rpartition(".")[2]
        sentence = f"{described} Way {name[1:]}."
        if record.kind == "explain":
            assert f"```python\ndef {name}(parts):\n    t{name[1:]} = 0" in record.prompt
            assert sentence not in record.prompt
            assert record.response == sentence
        elif record.kind == "document":
            assert sentence not in record.prompt
            assert record.response == f'"""{sentence}"""'
        elif record.kind == "implement":
            assert f'def {name}(parts):\n    """{sentence}"""\n```' in record.prompt
            assert record.response.startswith(f"```python\ndef {name}(parts):\n    t{name[1:]} = 0")
            assert sentence not in record.response
            ast.parse(record.response.removeprefix("```python\n").removesuffix("\n```"))


def test_a_function_too_long_to_show_is_asked_about_by_name(package):
    [record] = package(a=too_long_to_show("Return the sum of many parts."))
    assert record.kind == "describe"
    assert record.prompt == "What does the Python function `mined_pkg.a.f(parts)` do?"
    assert record.response == "Return the sum of many parts."


def test_methods_are_called_methods_and_lose_self_in_calls(package):
    text = """
        class Box:
            def put(self, thing: "Thing", *, at=None):
                '''Put a thing into the box here.'''
    """
    [record] = package(a=text)
    assert (
        record.prompt
        == "What does the Python method `mined_pkg.a.Box.put(thing: Thing, *, at=None)` do?"
    )


def test_names_stop_at_the_first_private_module(package):
    [record] = package({"stats/_impl.py": documented("Return the sum of the given parts.")})
    assert record.function == "mined_pkg.stats.f"
    assert record.file == "mined_pkg/stats/_impl.py"


@pytest.mark.parametrize(
    ("docstring", "description"),
    [
        ("Return the sum of all parts", "Return the sum of all parts."),
        ("Return the\n    sum of all parts.", "Return the sum of all parts."),
        (
            "Return the sum of parts.\n\n    They may be floats.\n\n    Parameters\n    -----\n    x",
            "Return the sum of parts.\n\nThey may be floats.",
        ),
        (
            "Return the sum of all parts.\n    Args:\n        parts: x",
            "Return the sum of all parts.",
        ),
        ("Return the sum of all parts.\n\n    :param parts: x", "Return the sum of all parts."),
        ("Return the sum of all parts.\n\n    >>> f([1])\n    1", "Return the sum of all parts."),
        (
            "Return the sum of all parts.\n\n    Its cost is given by:\n\n    .. math:: n",
            "Return the sum of all parts.",
        ),
        ("f(parts) -> number\n\n    Return the sum of all parts.", "Return the sum of all parts."),
        (
            "Return a :class:`~x.y.Sum` of ``parts``, see :func:`a.b` [1]_.",
            "Return a `Sum` of `parts`, see `a.b`.",
        ),
        ("Return the sum of *parts*, all. See `x.y` for more.", "Return the sum of `parts`, all."),
        ("Return sum.", None),
        ("Return the sum of %(klass)s parts.", None),
        ("Return the sum of {klass} parts.", None),
        ("See the function g for a description.", None),
        ("Deprecated, use something else than this.", None),
        ("return the sum of all parts", None),
    ],
)
def test_a_docstring_is_reduced_to_plain_paragraphs_or_left_out(package, docstring, description):
    other = too_long_to_show("Return the difference of both.", "other")
    records = package(a=too_long_to_show(docstring) + other)
    found = [record.response for record in records if record.function.endswith(".f")]
    assert found == ([] if description is None else [description])


def test_private_trivial_and_repeated_functions_are_left_out(package):
    parts = [
        documented("Return the sum of all parts."),
        documented("Return the sum of all parts.", "same_words").replace("total", "other"),
        documented("Return all the parts, summed up."),
        documented("Return the sum of private parts.", "_private"),
        "class _Hidden:\n    def f(self):\n        '''Return the sum of hidden parts.'''\n",
        "class A:\n    @property\n    def f(self):\n        '''Return the sum of known parts.'''\n",
        "from typing import overload\n@overload\ndef g(x):\n    '''Return the sum of typed parts.'''\n",
    ]
    records = package(
        {
            "a.py": "".join(parts),
            "b.py": documented("Return the sum of all parts."),
            "tests/c.py": documented("Return the sum of tested parts."),
            "_vendor/d.py": documented("Return the sum of foreign parts."),
            "broken.py": "def f(:\n",
            "latin.py": "",
        }
    )
    assert [(record.file, record.line) for record in records] == [("mined_pkg/a.py", 1)]


def test_a_function_is_written_only_if_its_names_are_known(package):
    unknown = "".join(
        documented(f"Return the sum of parts, way {i}.", f"f{i}").replace("= 0", f"= start({i})")
        for i in range(20)
    )
    assert "implement" not in {record.kind for record in package(a=unknown)}


def test_mining_twice_gives_the_same_and_converts_without_a_refusal():
    first, again = (list(mine(["json", "textwrap", "pydantic"])) for _ in range(2))
    assert first == again
    assert Counter(record.package for record in first).keys() == {"json", "textwrap", "pydantic"}
    for record in first:
        messages = convert({"prompt": record.prompt, "response": record.response})
        assert messages[-1]["content"] == record.response
    assert len({record.function for record in first}) == len(first)


def test_packages_are_not_imported():
    before = set(sys.modules)
    assert next(iter(mine(["lm_eval"]))).package == "lm_eval"
    assert not {name for name in set(sys.modules) - before if name.startswith("lm_eval")}


def test_a_version_stands_for_a_package_and_a_hash_where_there_is_none(package, tmp_path):
    assert package_version("stdlib") == platform.python_version()
    assert package_version("sklearn") == importlib.metadata.version("scikit-learn")
    package(a=documented("Return the sum of all parts."))
    before = package_version("mined_pkg")
    assert before.startswith("sha256:")
    assert package_version("mined_pkg") == before
    package(a=documented("Return the sum of all the parts."))
    assert package_version("mined_pkg") != before


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "nope_nope",
            "docstrings://nope_nope: package nope_nope is not installed here; install it",
        ),
        (
            "os.path",
            "docstrings://os.path: expected import names of installed packages, as in docstr",
        ),
        ("zlib_nothing", "docstrings://zlib_nothing: package zlib_nothing is not installed here"),
        ("math", "docstrings://math: no documented Python function found; name another installed"),
    ],
)
def test_a_package_without_sources_is_told(name, message):
    with pytest.raises(LeadError) as error:
        list(mine([name]))
    assert str(error.value).startswith(message)


@pytest.mark.slow
def test_the_default_pool_is_large_and_mined_in_seconds():
    started = time.process_time()
    records = list(mine(["stdlib", "numpy", "pandas", "scipy", "sklearn", "torch"]))
    assert time.process_time() - started < 30
    assert len(records) > 8000
    assert min(Counter(record.package for record in records).values()) > 500
