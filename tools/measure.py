"""Measure how readable the project is: cells, prose, lines and names, in one table.

    python tools/measure.py               this checkout
    python tools/measure.py --root OTHER  another one
"""
import argparse
import ast
import json
import re
from collections import Counter
from pathlib import Path
from statistics import quantiles

EXPORT = re.compile(r"^#\s*\|\s*export", re.MULTILINE)
STEP = re.compile(r"^#+ Step (\d+): ", re.MULTILINE)
DIRECTIVE = re.compile(r"\s*#\s*\|")
TINY = 6  # lines; definitions this short may share a cell


def notebooks(root: Path) -> list[Path]:
    "All notebooks in reading order: the course, then the machinery."
    return [*sorted((root/"nbs").glob("[0-9]*.ipynb")), *sorted((root/"nbs"/"machinery").rglob("*.ipynb"))]


def cells_of(path: Path) -> list[tuple[str, str]]:
    "The kind and the source of each cell."
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [(cell["cell_type"], "".join(cell["source"])) for cell in cells]


def is_exported(kind: str, source: str) -> bool: return kind == "code" and bool(EXPORT.search(source))


def size_of(source: str) -> int:
    "The lines of a cell, without blank lines and directives."
    return sum(bool(line.strip()) and not DIRECTIVE.match(line) for line in source.split("\n"))


def length_of(node: ast.stmt) -> int: return node.end_lineno - node.lineno + 1


def parsed(source: str) -> ast.Module:
    "The syntax tree of a cell, without magics and shell commands."
    return ast.parse(re.sub(r"^(\s*)[%!].*$", r"\1pass", source, flags=re.MULTILINE))


def definitions(source: str) -> list[ast.stmt]:
    "The functions and classes that a cell defines."
    return [node for node in parsed(source).body if isinstance(node, (ast.FunctionDef, ast.ClassDef))]


def names_of(node: ast.stmt) -> list[str]:
    "The names that a statement at the top of a module defines."
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)): return [node.name]
    if isinstance(node, ast.Assign): targets = node.targets
    elif isinstance(node, ast.AnnAssign): targets = [node.target]
    else: return []
    return [name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)]


def measure_cells(paths: list[Path]) -> dict[str, object]:
    "The sizes of exported cells, and what surrounds those that define something."
    sizes, several, bare, unshown, defining = [], 0, 0, 0, 0
    for path in paths:
        cells = [("", ""), *cells_of(path), ("", "")]
        for before, (kind, source), after in zip(cells, cells[1:], cells[2:]):
            if not is_exported(kind, source): continue
            sizes.append(size_of(source))
            found = definitions(source)
            if not found: continue
            defining += 1
            several += len(found) > 1 and max(map(length_of, found)) > TINY
            bare += before[0] != "markdown"
            unshown += after[0] != "code" or is_exported(*after)
    cuts = quantiles(sizes, n=100, method="inclusive")
    spread = f"{cuts[49]:.0f} / {cuts[89]:.0f} / {max(sizes)}"
    return {"exported cell, lines: median / 90th percentile / longest": spread,
            "exported cells with several definitions, tiny pairs aside": f"{several} of {len(sizes)}",
            "defining cells without prose directly above": f"{bare} of {defining}",
            "defining cells not directly followed by something shown or asserted": f"{unshown} of {defining}"}


def measure_lines(root: Path, paths: list[Path]) -> dict[str, object]:
    "Long lines of code in notebooks, tests, benchmarks and tools."
    code = [source for path in paths for kind, source in cells_of(path) if kind == "code"]
    for folder in ("tests", "benchmarks", "tools"):
        code += [path.read_text(encoding="utf-8") for path in sorted((root/folder).rglob("*.py"))]
    lengths = [len(line) for source in code for line in source.split("\n")]
    long, very_long = (sum(length > most for length in lengths) for most in (120, 140))
    return {"lines over 120 characters (over 140)": f"{long} ({very_long})"}


def public_names(tree: ast.Module) -> set[str]:
    "What a module defines without an underscore."
    return {name for node in tree.body for name in names_of(node) if not name.startswith("_")}


def imported_names(tree: ast.Module) -> set[tuple[str, str]]:
    "The last part of the module and the name, of each import from the package."
    found = set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom): continue
        module = node.module or ""
        if node.level or module.startswith("highlight_sense"):
            found |= {(module.split(".")[-1], alias.name) for alias in node.names}
    return found


def measure_names(root: Path) -> dict[str, object]:
    "Public names, those that no other module uses, and those that several modules define."
    public, used = set(), set()
    for path in sorted((root/"highlight_sense").rglob("*.py")):
        if path.name.startswith("_"): continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        public |= {(path, name) for name in public_names(tree)}
        used |= imported_names(tree)
    alone = sum((path.stem, name) not in used for path, name in public)
    shared = sorted(name for name, count in Counter(name for _, name in public).items() if count > 1)
    return {"public names; used by no other module": f"{len(public)}; {alone}",
            "names that live in several modules": f"{len(shared)}" + (f" ({', '.join(shared)})" if shared else "")}


def words_before_convolution(paths: list[Path]) -> int:
    "Words of prose before the first convolution, reading in order."
    words = 0
    for path in paths:
        for kind, source in cells_of(path):
            if kind == "markdown": words += len(source.split())
            if is_exported(kind, source) and "nn.Conv2d(" in source: return words
    return words


def block_length(paths: list[Path]) -> int | str:
    "The lines of `ConvBlock`, the network's convolution, norm, ReLU and pool."
    for path in paths:
        for kind, source in cells_of(path):
            if not is_exported(kind, source): continue
            for node in definitions(source):
                if node.name == "ConvBlock": return length_of(node)
    return "not found"


def measure_reading(root: Path, paths: list[Path]) -> dict[str, object]:
    "How soon a reader meets the network, which steps have headings, and how long the papers are."
    prose = [source for path in paths for kind, source in cells_of(path) if kind == "markdown"]
    steps = {number for source in prose for number in STEP.findall(source)}
    papers = [root/"README.md", root/"benchmarks"/"RESULTS.md"]
    lengths = [str(len(path.read_text(encoding="utf-8").split())) for path in papers if path.exists()]
    return {"`ConvBlock`, lines": block_length(paths),
            "words before the first convolution, reading in order": words_before_convolution(paths),
            "Colab steps with a heading of their own": f"{len(steps)} of 10",
            "README; RESULTS, words": "; ".join(lengths)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    here = Path(__file__).resolve().parent.parent
    parser.add_argument("--root", type=Path, default=here, help="the checkout to measure (default: this one)")
    root = parser.parse_args().root
    paths = notebooks(root)
    rows = measure_cells(paths) | measure_lines(root, paths) | measure_names(root) | measure_reading(root, paths)
    print("| | |\n|---|---|")
    for name, value in rows.items(): print(f"| {name} | {value} |")


if __name__ == "__main__": main()
