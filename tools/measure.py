"""Measure how readable the project is: cells, prose, lines, names. Prints one table.

    python tools/measure.py                what stands here
    python tools/measure.py --root OTHER   the same of another checkout
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
TINY = 6  # lines: two definitions this short may share a cell


def notebooks(root: Path) -> list[Path]:
    "Every notebook in reading order: the course, then the machinery."
    return [*sorted((root/"nbs").glob("[0-9]*.ipynb")), *sorted((root/"nbs"/"machinery").rglob("*.ipynb"))]


def cells_of(path: Path) -> list[tuple[str, str, bool]]:
    "Kind, source and whether there is an output, of each cell."
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [(cell["cell_type"], "".join(cell["source"]), bool(cell.get("outputs"))) for cell in cells]


def parsed(source: str) -> ast.Module:
    "The syntax tree of a cell, without the notebook's own commands."
    return ast.parse(re.sub(r"^(\s*)[%!].*$", r"\1pass", source, flags=re.MULTILINE))


def definitions(source: str) -> list[ast.stmt]:
    "The functions and classes that a cell defines."
    return [node for node in parsed(source).body if isinstance(node, (ast.FunctionDef, ast.ClassDef))]


def names_of(node: ast.stmt) -> list[str]:
    "What a statement at the top of a module names."
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)): return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)]


def measure_cells(paths: list[Path]) -> dict[str, object]:
    "Sizes of exported cells, and what stands around those that define something."
    sizes, several, bare, unshown, defining = [], 0, 0, 0, 0
    for path in paths:
        cells = cells_of(path)
        for number, (kind, source, _) in enumerate(cells):
            if kind != "code" or not EXPORT.search(source): continue
            sizes.append(source.count("\n") + 1)
            found = definitions(source)
            if not found: continue
            defining += 1
            several += len(found) > 1 and max(node.end_lineno - node.lineno + 1 for node in found) > TINY
            bare += cells[number - 1][0] != "markdown"
            after = cells[number + 1] if number + 1 < len(cells) else ("", "", False)
            unshown += not (after[0] == "code" and not EXPORT.search(after[1]))
    cuts = quantiles(sizes, n=100, method="inclusive")
    return {"exported cell, lines: median / 90th percentile / longest": f"{cuts[49]:.0f} / {cuts[89]:.0f} / {max(sizes)}",
            "exported cells with several definitions, tiny pairs aside": f"{several} of {len(sizes)}",
            "defining cells without prose directly above": f"{bare} of {defining}",
            "defining cells not directly followed by something shown or asserted": f"{unshown} of {defining}"}


def measure_lines(root: Path, paths: list[Path]) -> dict[str, object]:
    "Long lines of code, in notebooks, tests, benchmarks and tools."
    code = [source for path in paths for kind, source, _ in cells_of(path) if kind == "code"]
    code += [path.read_text(encoding="utf-8") for folder in ("tests", "benchmarks", "tools") for path in sorted((root/folder).rglob("*.py"))]
    lengths = [len(line) for source in code for line in source.split("\n")]
    return {"lines over 120 characters (over 140)": f"{sum(n > 120 for n in lengths)} ({sum(n > 140 for n in lengths)})"}


def measure_names(root: Path) -> dict[str, object]:
    "Public names, those that no other module uses, and those that several modules define."
    package, defined, used = root/"highlight_sense", {}, set()
    for path in sorted(package.rglob("*.py")):
        if path.name.startswith("_"): continue
        tree, module = ast.parse(path.read_text(encoding="utf-8")), path.relative_to(package).with_suffix("").as_posix().replace("/", ".")
        names = [name for node in tree.body for name in names_of(node)]
        defined[module] = {name for name in names if not name.startswith("_")}
        for node in ast.walk(tree):
            if not isinstance(node, ast.ImportFrom) or not (node.level or (node.module or "").startswith("highlight_sense")): continue
            used |= {((node.module or "").split(".")[-1], alias.name) for alias in node.names}
    public = [(module, name) for module, names in defined.items() for name in names]
    alone = sum((module.split(".")[-1], name) not in used for module, name in public)
    shared = sorted(name for name, count in Counter(name for _, name in public).items() if count > 1)
    return {"public names; used by no other module": f"{len(public)}; {alone}",
            "names that live in several modules": f"{len(shared)}" + (f" ({', '.join(shared)})" if shared else "")}


def measure_reading(root: Path, paths: list[Path]) -> dict[str, object]:
    "How soon a reader meets the network, which steps have headings, and the papers' lengths."
    words, steps = 0, []
    for path in paths:
        for kind, source, _ in cells_of(path):
            if kind == "markdown": steps += STEP.findall(source)
    for path in paths:
        cells = cells_of(path)
        first = next((i for i, (kind, source, _) in enumerate(cells) if kind == "code" and "nn.Conv2d(" in source and EXPORT.search(source)), None)
        words += sum(len(source.split()) for kind, source, _ in cells[:first] if kind == "markdown")
        if first is not None: break
    papers = "; ".join(str(len((root/name).read_text(encoding="utf-8").split())) for name in ("README.md", "benchmarks/RESULTS.md") if (root/name).exists())
    block = next((definitions(source)[0] for path in paths for kind, source, _ in cells_of(path)
                  if kind == "code" and EXPORT.search(source) and re.search(r"^class ConvBlock\b", source, re.MULTILINE)), None)
    return {"`ConvBlock`, lines": block.end_lineno - block.lineno + 1 if block else "none",
            "words before the first convolution, reading in order": words,
            "Colab steps with a heading of their own": f"{len(set(steps))} of 10",
            "README; RESULTS, words": papers}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path(__file__).resolve().parent.parent, help="the checkout (default: this one)")
    root = parser.parse_args().root
    paths = notebooks(root)
    rows = measure_cells(paths) | measure_lines(root, paths) | measure_names(root) | measure_reading(root, paths)
    print("| | |\n|---|---|")
    for name, value in rows.items(): print(f"| {name} | {value} |")


if __name__ == "__main__": main()
