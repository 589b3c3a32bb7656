"llms.txt, which the site serves, lists every page once, with its line."
import re
from pathlib import Path

NBS = Path(__file__).parents[2]/"nbs"


def test_every_page_is_listed_once():
    "Each title has an address of the site whose page exists, and the line under the title."
    text = (NBS/"llms.txt").read_text(encoding="utf-8")
    listed = re.findall(r"^- \[.+\]\(https://[^/]+/[\w-]+/(\S+)\.html\): (.+)$", text, re.MULTILINE)
    pages = {page.relative_to(NBS).with_suffix("").as_posix() for page in NBS.rglob("*.ipynb")} - {"index"}
    pages |= {page.relative_to(NBS).with_suffix("").as_posix() for page in (NBS/"start").glob("*.md")}
    assert sorted(name for name, _ in listed) == sorted(pages)
    for name, line in listed:
        page = next(path for path in (NBS/f"{name}.md", NBS/f"{name}.ipynb") if path.is_file())
        source = page.read_text(encoding="utf-8")
        assert f"> {line}" in source.replace('\\"', '"'), name
    assert text.startswith("# HighlightSense\n\n> ") and "resources: [llms.txt]" in (NBS/"_quarto.yml").read_text()
