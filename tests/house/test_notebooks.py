"What readers see of the stored notebooks: outputs and a badge."
import json
import re
from pathlib import Path

import pytest

NBS = Path(__file__).parents[2]/"nbs"
COURSE = sorted(NBS.glob("[0-9]*.ipynb"))
NOTEBOOKS = [*COURSE, *sorted((NBS/"start").glob("*.ipynb")), *sorted((NBS/"machinery").rglob("*.ipynb"))]


def text_of(output: dict) -> str:
    "What an output shows as text."
    return "".join(output.get("text", [])) + "".join(output.get("data", {}).get("text/plain", []))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_are_stored_and_clean(path):
    "Notebooks are stored executed, without errors, warnings, progress bars or local paths."
    cells = [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert outputs, "no stored outputs: the notebook was committed without being executed"
    assert not [output for output in outputs if output["output_type"] == "error" or output.get("name") == "stderr"]
    shown = "".join(map(text_of, outputs))
    assert not re.search(r"/(tmp|home|root|Users|var)/|[A-Z]:\\", shown)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_opens_in_colab(path):
    "Each notebook has a Colab badge at the top, and an install cell before its first import of the package."
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells]
    assert any("colab-badge.svg" in source and path.name in source for source in sources[:3])
    install = next(i for i, source in enumerate(sources) if source.startswith("#| hide\n# install"))
    first_use = next((i for i, source in enumerate(sources)
                      if re.search(r"^(from|import) (highlight_sense|torch)", source, re.M)), len(sources) - 1)
    assert install < first_use
