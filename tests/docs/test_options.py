"""The pages of tasks and architectures say what their options are, and what the schemas say of them."""

import re
from pathlib import Path

import pytest

from learning.architectures import ARCHITECTURES
from learning.tasks import TASKS

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize(("page", "names"), [("tasks.md", list(TASKS)), ("architectures.md", list(ARCHITECTURES))])
def test_each_has_a_heading_in_the_documentation(page, names):
    headings = re.findall(r"^## (\S+)$", (DOCS / page).read_text(), flags=re.MULTILINE)
    assert headings == names


@pytest.mark.parametrize(
    ("page", "name", "schema"),
    [("tasks.md", name, task.Config) for name, task in TASKS.items()]
    + [("architectures.md", name, architecture.Config) for name, architecture in ARCHITECTURES.items()],
)
def test_the_documentation_gives_each_option_its_default_and_sentence(page, name, schema):
    section = (DOCS / page).read_text().split(f"## {name}\n")[1].split("\n## ")[0]
    for option, field in schema.model_fields.items():
        assert f"| `{option}` |" in section
        assert field.description in section
